"""What a workflow may be: every fault at once, by path in code and by line in the roles file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from breakwater.errors import ConfigError, InvalidPrompt, InvalidWorkflow, UnknownWorkflow
from breakwater.workflows import Definition, Loop, Stage, Until, section, workflow
from breakwater.workflows.definition import read
from breakwater.workflows.template import BadTemplate, parse, render
from tasks.answering.settings_loader import load_settings

ROLES = ("coder", "planner", "reviewer")
PLAN = Stage("plan", "planner", "{input}")
REVIEW = Until("review", contains="OK")


def loop(*stages: Stage, until: Until = REVIEW, **how: Any) -> Loop:
    return Loop(stages or (Stage("review", "reviewer", "x"),), until, how.pop("at_most", 2), **how)


FAULTS = {
    "names": (
        [Stage("input", "coder", "x")],
        ["[1].name: 'input' cannot name a stage; allowed is"],
    ),
    "twice": ([PLAN, PLAN], ["[2].name: 'plan' is already the name of an earlier stage"]),
    "role": (
        [Stage("a", "codr", "x")],
        [
            "[1].role: unknown role 'codr'; there are coder, planner, reviewer (did you mean 'coder'?)"
        ],
    ),
    "unknown": (
        [PLAN, Stage("a", "coder", "{plam}")],
        ["[2].prompt: 'plam' is not a stage; known here are input, plan (did you mean 'plan'?)"],
    ),
    "later": (
        [Stage("a", "coder", "{plan}"), PLAN],
        ["[1].prompt: 'plan' comes later; known here are input"],
    ),
    "itself": (
        [Stage("a", "coder", "{a}")],
        ["[1].prompt: 'a' comes later; known here are input"],
    ),
    "brace": ([Stage("a", "coder", "a } b")], ["[1].prompt: a single '}'; write '}}'"]),
    "path": (
        [PLAN, Stage("a", "coder", "{plan.__class__}")],
        [
            "[2].prompt: '{plan.__class__}' is not a valid reference; a field is written {plan.data.title}"
        ],
    ),
    "input's field": (
        [Stage("a", "coder", "{input.x}")],
        ["[1].prompt: the input is a text, and has no fields; write '{input}'"],
    ),
    "blank": ([Stage("a", "coder", " ")], ["[1].prompt: is not a text"]),
    "option": (
        [Stage("a", "coder", "x", sistem="y", params={"temperature": 9})],
        [
            "[1].sistem: unknown key 'sistem'; allowed are name, role, prompt, system",
            "[1]: params.temperature: 9 is not a number from 0 to 2",
        ],
    ),
    "deadline": (
        [Stage("a", "coder", "x", deadline_s=31 * 86400)],
        ["[1].deadline_s: is more than 30 days"],
    ),
    "empty": ([], ["a workflow is a list of stages and loops; there must be at least one"]),
    "no stage": (["plan"], ["[1]: is not a mapping with the keys name, role, prompt"]),
    "at_most": ([loop(at_most=0)], ["[1].loop.at_most: is not a whole number from 1 to 100"]),
    "or_fail": ([loop(or_fail=1)], ["[1].loop.or_fail: is not true or false"]),
    "until whom": (
        [PLAN, loop(until=Until("plan", contains="OK"))],
        ["[2].loop.until.stage: unknown stage 'plan'; the loop has review"],
    ),
    "until what": (
        [loop(until=Until("review"))],
        ["[1].loop.until: needs either contains or equals"],
    ),
    "nested": (
        [{"loop": {"stages": [loop().as_dict()], "until": REVIEW.as_dict(), "at_most": 1}}],
        ["[1].loop.stages[1]: a loop inside a loop; only one level is allowed"],
    ),
    "keys beside a loop": (
        [{**loop().as_dict(), "at_most": 3}],
        ["[1]: a loop stands alone; its keys belong under 'loop'"],
    ),
    "missing": ([{"name": "a"}], ["[1]: role is missing", "[1]: prompt is missing"]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_told_with_its_place_and_what_is_allowed(case: str) -> None:
    """All of them, in the order in which they stand; no other."""
    stages, expected = FAULTS[case]

    with pytest.raises(InvalidWorkflow) as refused:
        Definition.of("w", stages, ROLES)

    told = refused.value.details["faults"]
    assert len(told) == len(expected)
    assert all(fault.startswith(start) for fault, start in zip(told, expected, strict=True)), told
    assert all(fault in str(refused.value) for fault in told)


def test_a_loops_stages_may_refer_to_each_other_and_what_follows_to_them() -> None:
    """Also to one that comes later in the round: it is empty in the first."""
    code = Stage("code", "coder", "{plan} {review} {code}")
    after = Stage("sum", "planner", "{code} {review}")

    definition = Definition.of(
        "w", [PLAN, loop(code, Stage("review", "reviewer", "{code}")), after], ROLES
    )

    assert [stage.name for stage in definition.each()] == ["plan", "code", "review", "sum"]


def test_a_definition_travels_as_json() -> None:
    """A pydantic model goes as its JSON Schema."""

    class Verdict(BaseModel):
        ok: bool

    stage = Stage("review", "reviewer", "x", system="y", metadata={"a": 1})
    definition = Definition(
        "w", (PLAN, loop(stage, until=Until("review", equals={"ok": True}), or_fail=True))
    )

    assert Definition.from_dict(definition.as_dict()).as_dict() == definition.as_dict()
    assert Stage("a", "b", "c", schema=Verdict).options["schema"] == Verdict.model_json_schema()


ANSWERS = {
    "plan": {
        "text": "{input} & co",
        "data": {"title": "Login", "steps": [{"n": 1}, "two"], "no": None},
    },
    "prose": {"text": "words", "data": None},
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a {input} b", "a <in> b"),
        ("{plan}", "{input} & co"),
        ("{{{input}}} {{plan}}", "{<in>} {plan}"),
        ("{plan.data.title}/{plan.data.steps.1}", "Login/two"),
        ("{plan.data.steps.0}", '{"n": 1}'),
        ("{plan.data.no}", "null"),
        ("[{review}{review.data.ok}]", "[]"),
    ],
)
def test_a_template_is_filled_in_once(template: str, said: str) -> None:
    """What is put in is not looked at again; a stage that has not run is empty."""
    assert render(template, "<in>", ANSWERS) == said


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        ("{plan.data.titel}", "{plan.data.titel}: the data of stage 'plan' has no 'titel'"),
        ("{plan.data.steps.2}", "has no '2'"),
        ("{plan.data.steps.-1}", "has no '-1'"),
        ("{plan.data.steps." + "9" * 5_000 + "}", "has no '9999"),
        ("{plan.data.title.__class__}", "has no '__class__'"),
        ("{prose.data.title}", "has no 'title'"),
    ],
)
def test_a_field_that_is_not_there_is_an_error_that_names_it(template: str, missing: str) -> None:
    """Data alone is looked into, by key and by index; attributes never."""
    with pytest.raises(InvalidPrompt) as refused:
        render(template, "<in>", ANSWERS)

    assert missing in str(refused.value)


@pytest.mark.parametrize(
    "template", ["{input}" * 60, "{plan}" * 60, "{plan.data}" * 60, "{plan.data.a}" * 60]
)
def test_a_prompt_is_counted_while_it_is_filled_in(template: str) -> None:
    """The whole of it might be larger than the worker's memory."""
    large = "x" * (1024 * 1024)
    answers = {"plan": {"text": large, "data": {"a": large}}}

    with pytest.raises(InvalidPrompt, match="filled in, has more than 8388608 characters"):
        render(template, large, answers)


def test_the_input_of_a_workflow_is_no_larger_than_a_prompt() -> None:
    """It is refused before a run is begun."""
    with pytest.raises(InvalidPrompt, match="at most 8388608 are allowed"):
        workflow([PLAN]).delay("x" * 9_000_000)


def test_a_definition_is_read_in_time_that_grows_with_its_size() -> None:
    """Neither its stages, nor their prompts, nor unknown names in them have a square."""
    many = [{"name": f"s{n}", "role": "coder", "prompt": "x"} for n in range(20_000)]
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    bad = Loop([PLAN], Until("plan", equals={"ok": deep}), 1)
    with pytest.raises(InvalidWorkflow, match="equals: cannot be written as JSON"):
        Definition.of("w", [bad], None)
    unknown = "".join(f"{{unknown{n}}}" for n in range(50_000))

    def faults(nodes: list[dict[str, str]]) -> list[str]:
        return [what for _, what in read("w", nodes, ROLES)[1]]

    assert faults(many) == ["20000 stages; a workflow has at most 100"]
    assert "1048577 characters" in faults([{**many[0], "prompt": "x" * 1_048_577}])[0]
    assert len(faults([{**many[0], "prompt": unknown}])) == 10


@pytest.mark.parametrize(
    "template", ["{", "}", "{a", "a}", "{{}", "{a.b}", "{a.data.}", "{a..data}"]
)
def test_a_brace_that_means_nothing_is_refused(template: str) -> None:
    """A reference is a name, or a name and a way into its data."""
    with pytest.raises(BadTemplate):
        parse(template)


FILE = """\
providers:
  local: {adapter: openai-chat, model: m, api_key: "${NOT_SET_HERE}", base_url: "http://h/v1"}
roles:
  coder: {chain: [local]}
  reviewer: {chain: [local]}
workflows:
  feature:
    - {name: code, role: coder, prompt: "${LANGUAGE:-Python}: {input}"}
    - loop:
        until: {stage: review, equals: {ok: true}}
        at_most: 3
        stages:
          - {name: fix, role: coder, prompt: "{code} {review}", params: {temperature: 0}}
          - {name: review, role: reviewer, prompt: "{fix}"}
"""


@pytest.fixture
def roles_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "roles.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("ROLES_FILE", str(path))
    return path


def test_the_example_in_the_docs_is_a_workflow(roles_file: Path) -> None:
    """As it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    four = "".join(f"  {role}: {{chain: [local]}}\n" for role in ("clarifier", "planner"))
    text = FILE.partition("workflows:")[0].replace("roles:\n", f"roles:\n{four}") + example
    roles_file.write_text(text.replace("${NOT_SET_HERE}", "k"))

    assert set(load_settings().roles) == {"clarifier", "planner", "coder", "reviewer"}
    assert [stage.name for stage in workflow("feature").definition.each()] == [
        "clarify", "plan", "code", "review",
    ]  # fmt: skip


@pytest.mark.usefixtures("roles_file")
def test_a_producer_reads_the_workflows_without_keys() -> None:
    """The variables of their own section are put in; those of the providers need not be there."""
    found = workflow("feature").definition

    assert [stage.name for stage in found.each()] == ["code", "fix", "review"]
    assert next(found.each()).prompt == "Python: {input}"


@pytest.mark.usefixtures("roles_file")
def test_an_unknown_workflow_is_told_with_the_nearest() -> None:
    """And with those that there are."""
    with pytest.raises(UnknownWorkflow) as refused:
        workflow("featur")

    assert str(refused.value) == (
        "unknown workflow 'featur'; there are feature (did you mean 'feature'?)"
    )


def test_the_faults_of_the_file_have_their_lines(
    roles_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the worker with those of the whole file, for a producer those of this section alone."""
    text = FILE.replace("{code} {review}", "{cod} {review}").replace(
        "role: reviewer,", "role: reviwer,"
    )
    text = text.replace("at_most: 3", "at_most: 300").replace("LANGUAGE:-Python", "LANGUAGE")
    roles_file.write_text(text)

    with pytest.raises(ConfigError) as at_the_worker:
        load_settings()
    with pytest.raises(ConfigError) as at_the_producer:
        section.load()
    monkeypatch.setenv("LANGUAGE", "Go")
    with pytest.raises(ConfigError) as with_it:
        section.load()

    def lines(raised: Any) -> list[str]:
        return [
            fault.removeprefix(f"{roles_file}:").split(":")[0]
            for fault in raised.value.details["faults"]
        ]

    assert lines(at_the_worker) == ["2", "8"]
    assert lines(at_the_producer) == ["8"]
    assert lines(with_it) == ["11", "13", "14"]
    assert "14: workflows.feature[2].loop.stages[2].role: unknown role 'reviwer'" in str(
        with_it.value
    )


def test_a_producer_without_a_roles_file_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Roles are published by workers, workflows are not; the file is missing, not the workflow."""
    monkeypatch.delenv("ROLES_FILE", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnknownWorkflow, match="has no roles file to read it from; set ROLES_FILE"):
        workflow("feature")
