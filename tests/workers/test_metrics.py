"""`breakwater ledger` and `why`, over what real workers wrote."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

import pytest
import redis

from simulator.client import Simulator
from tests.support.fleet import KEYS, Fleet, fleet, wait_for

PRICES = {"claude": ("1", "5"), "gpt": ("0.25", "2"), "gemini": ("0.1", "0.4")}
"""US dollars per million tokens of input and output."""
ROLES = {
    "clarifier": ["claude", "gpt"], "planner": ["gpt", "gemini"],
    "coder": ["gemini", "claude", "gpt"], "reviewer": ["claude", "gemini"],
}  # fmt: skip

ENQUEUE = """
from tasks import complete
results = [complete.delay(role, f"prompt {n} " * (n + 1), metadata={"team": "ab"[n & 1]})
           for n in range(25) for role in %r]
for result in results:
    result.get(timeout=180)
"""


def roles_over(simulator: Simulator, reset_s: float = 30) -> str:
    """Each role asks each provider for a model of its own, so that a hit tells its role."""
    adapters = {"claude": "anthropic", "gpt": "openai", "gemini": "google"}
    providers = ""
    for name, adapter in adapters.items():
        url = simulator.url(name) + ("/v1" if name == "gpt" else "")
        given, answer = PRICES[name]
        providers += (
            f'  {name}: {{adapter: {adapter}, model: m, api_key: {KEYS[name]}, base_url: "{url}", '
            f"breaker: {{reset_timeout_s: {reset_s}}}, "
            f'prices: {{"*": {{input_tokens: {given}, output_tokens: {answer}}}}}}}\n'
        )
    roles = ""
    for role, chain in ROLES.items():
        links = ", ".join(f"{{provider: {name}, model: {role}-{name}}}" for name in chain)
        roles += f"  {role}: {{chain: [{links}]}}\n"
    return f"providers:\n{providers}roles:\n{roles}"


def read(workers: Fleet, *words: str) -> Any:
    done = workers.command("breakwater", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def drained(client: redis.Redis, workers: Fleet) -> None:
    wait_for(
        lambda: client.xlen("ledger") == 0 and client.zcard("taken:until") == 0, 30, workers.logs
    )


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    """Redis, as an operator sees it."""
    return redis.Redis.from_url(redis_url, decode_responses=True)


@pytest.mark.slow
def test_the_summary_is_what_the_providers_counted(
    redis_url: str, simulator: Simulator, client: redis.Redis
) -> None:
    """100 tasks over three providers and four roles, with faults: to the token and to the cent."""
    simulator.script("claude", [{"status": 503, "first": 7}, {"kind": "no_text", "first": 3}])
    simulator.fault("gpt", status=429, retry_after=0.3, first=4)
    simulator.fault("gemini", status=500, first=4)
    with fleet(redis_url, roles_over(simulator, reset_s=2)) as workers:
        workers.start(2, "threads", 8)
        workers.run(ENQUEUE % list(ROLES), timeout_s=120)
        drained(client, workers)

        told = read(workers, "ledger", "summary", "--by", "provider,role", "--json")
        teams = [
            read(workers, "ledger", "summary", "--by", "", "--metadata", f"team={team}", "--json")
            for team in "ab"
        ]
        rows = workers.command("breakwater", "ledger", "export", "--role", "coder").stdout

    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    for hit in simulator.hits():
        role, _, provider = hit["model"].partition("-")
        line = wanted.setdefault((provider, role), {"calls": 0, "in": 0, "out": 0})
        line["calls"] += 1
        line["in"] += hit["input_tokens"]
        line["out"] += hit["output_tokens"]
    assert len(wanted) > 6
    assert {
        (line["provider"], line["role"]) for line in told if line["attempts"] > line["rejected"]
    } == set(wanted)
    for line in told:
        hits = wanted.get((line["provider"], line["role"]), {"calls": 0, "in": 0, "out": 0})
        given, answer = (Decimal(price) for price in PRICES[line["provider"]])
        assert line["attempts"] - line["rejected"] == hits["calls"]
        assert (line["input_tokens"], line["output_tokens"]) == (hits["in"], hits["out"])
        assert Decimal(line["cost_usd"]) == (given * hits["in"] + answer * hits["out"]) / 10**6
        assert line["unpriced"] == 0
    assert sum(line["succeeded"] for line in told) == 100
    assert {"Overloaded", "RateLimited", "ServerError"} <= {
        e for line in told for e in line["errors"]
    }
    assert [team[0]["succeeded"] for team in teams] == [52, 48]
    exported = list(csv.DictReader(io.StringIO(rows)))
    assert sum(row["outcome"] == "succeeded" for row in exported) == 25
    assert {row["role"] for row in exported} == {"coder"}


def opened(client: redis.Redis, workers: Fleet) -> bool:
    """Ask claude, and tell whether that opened its breaker: Redis may be late on a loaded machine."""
    workers.command("breakwater", "ask", "clarifier", "hi")
    return client.hget("breaker:{claude}", "state") == "open"


@pytest.mark.slow
def test_why_tells_a_tasks_whole_way(
    redis_url: str, simulator: Simulator, client: redis.Redis
) -> None:
    """One breaker rejected it, a second provider throttled it, a third served it."""
    with fleet(redis_url, roles_over(simulator)) as workers:
        text = workers.roles_file.read_text()
        workers.roles_file.write_text(text + "  three: {chain: [claude, gpt, gemini]}\n")
        workers.start()
        simulator.fault("claude", status=401)  # one is proof
        wait_for(lambda: opened(client, workers), 60)
        simulator.fault("gpt", status=429, retry_after=30)
        asked = workers.command("breakwater", "ask", "three", "hi", "--json")
        task_id = json.loads(asked.stdout)["task_id"]

        told = read(workers, "why", task_id, "--json")
        shown = workers.command("breakwater", "why", task_id).stdout
        drained(client, workers)
        later = read(workers, "why", task_id, "--json")
        nobody = workers.command("breakwater", "why", "no-such-task")

    first, second, third = told["attempts"]
    assert (first["provider"], first["outcome"], first["error"]) == (
        "claude",
        "rejected",
        "BreakerOpen",
    )
    assert first["why"].startswith("open (AuthenticationFailed), ask again in ")
    assert (second["provider"], second["outcome"], second["error"], second["status"]) == (
        "gpt", "failed", "RateLimited", 429,
    )  # fmt: skip
    assert second["why"] == "after claude: BreakerOpen"
    assert (third["provider"], third["outcome"], third["why"]) == (
        "gemini", "succeeded", "after gpt: RateLimited",
    )  # fmt: skip
    assert third["cost_usd"] is not None
    assert told["state"] == "SUCCESS"
    assert later == told  # from Redis first, then from the database
    assert shown.index("rejected BreakerOpen") < shown.index("failed RateLimited 429")
    assert (nobody.returncode, nobody.stderr) == (
        1, "task 'no-such-task' is unknown: it is not in Redis, nor in the ledger\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("summary", "--by", "provder"), "did you mean 'provider'?"),
        (("summary", "--outcome", "success"), "did you mean 'succeeded'?"),
        (("summary", "--since", "yesterday"), "is not a valid time, such as 24h"),
        (("summary", "--metadata", "x"), "is not KEY=VALUE"),
    ],
)
def test_wrong_words_are_told(workers: Fleet, words: tuple[str, ...], said: str) -> None:
    """With what is allowed, and exit code 2."""
    done = workers.command("breakwater", "metrics", *words)

    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", "").split())


def test_a_ledger_that_is_not_there_is_told(workers: Fleet) -> None:
    """It is not made, and an empty summary would be a lie."""
    done = workers.command("breakwater", "ledger", "summary")

    assert done.returncode == 1
    assert "there is no ledger sqlite:///ledger.db" in done.stderr
    assert not (workers.folder / "ledger.db").exists()


@pytest.mark.slow
def test_the_ledger_is_drained_imported_and_pruned_by_hand(
    workers: Fleet, client: redis.Redis
) -> None:
    """For when no worker runs."""
    from tests.support.ledger_rows import START_MS, row

    workers.environ["SPOOL_DIR"] = str(workers.folder / "spool")
    (workers.folder / "spool").mkdir()
    (workers.folder / "spool" / "ledger-1-1.jsonl").write_text(row("a") + "\n" + row("b") + "\n")
    client.xadd("ledger", {"row": row("c", started_ms=START_MS + 10**12)})

    said = [
        workers.command("breakwater", "ledger", *words).stdout.strip()
        for words in [("drain",), ("import",), ("import",), ("prune", "--older-than", "1d")]
    ]

    assert said[:3] == ["drained 1", "imported 2", "imported 0"]
    assert said[3].startswith("deleted 2 attempts before ")
    left = read(workers, "ledger", "summary", "--json")
    assert [line["attempts"] for line in left] == [1]
