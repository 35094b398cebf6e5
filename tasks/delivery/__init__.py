"""
Delivery: no accepted prompt is lost, none is paid for twice without need.

Celery's Redis transport takes a message off its list and only then notes that it is out: a worker
that dies in between has lost it, and what is worked on longer than a timeout is run again. Here a
take is one Lua script, a living worker renews what it holds, a silent one's messages go back to
the head of their lists within seconds, and each beginning of a task carries a fencing number
without which no call goes out and no result is written.

    transport.py   what Celery consumes and publishes through: the atomic take
    envelope.py    what a message must be before Celery sees it
    consumer.py    Celery's consumer: what is no task of ours becomes a dead letter
    keeper.py      a worker's thread that renews, recovers, and wakes parked queues
    lease.py       one task in hand: begin, call, settle, or wait
    result_spool.py  paid answers on disk, while Redis does not take them
    faults.py      a worker that cannot run what it took gives it back, and rests
    chord.py       the end of a chord's part; the last one queues the body
    backend.py     where results are written: once
    store.py       the keys, each step one script; the table of keys heads scripts/delivery.lua

Source of the fencing number: Martin Kleppmann, "How to do distributed locking", 2016.
"""
