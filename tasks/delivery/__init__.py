"""
Delivery: no accepted prompt is lost, and none is paid for twice without need.

Celery's Redis transport removes a message from its list, and records afterwards that a worker holds
it. A worker that dies in between loses the message, and a task that takes longer than a timeout
runs twice. Here a take is one Lua script. A living worker renews the leases of its messages, and
the messages of a silent worker return to the heads of their lists within seconds. Each delivery
that begins gets a fencing number; without the newest one no call goes out, and no result is
written.

    worker_transport.py   Celery's transport of a worker: the atomic take
    envelope.py           checks each message before Celery reads it
    consumer.py           Celery's consumer: a message that cannot run becomes a dead letter
    request.py            Celery's request, without the prompt
    lease.py              one delivery of a task: begin, call, settle, or requeue
    waits.py              the ways in which a task waits: a delay, or a parked queue
    lease_keeper.py       the thread that renews leases and requeues what dead workers held
    delivery_store.py     the steps in Redis; scripts/delivery.lua begins with a table of the keys
    result_spool.py       paid answers on disk, while Redis does not take them
    faults.py             pauses of a worker that cannot run what it took
    foreign_tasks.py      messages of other programs stay in their queues
    foreign_key_check.py  keys of ours that other programs use

The client's side is in breakwater/messaging: queues, results, chords.

Source of the fencing number: Martin Kleppmann, "How to do distributed locking", 2016.
"""
