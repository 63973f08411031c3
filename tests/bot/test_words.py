"""What we read from a repo and an operator, and what we write: options, selection of files, body, secrets."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelexport.contract import Graph, ModuleNode, Options
from modelexport.contract.errors import OptionsInvalidError, UsageError
from modelexport_bot import body, inputs, marker, policy, settings
from modelexport_bot.body import Subject, module_tree
from modelexport_bot.credentials import Token, redact
from modelexport_bot.hub import HubFile
from modelexport_bot.marker import Marker
from modelexport_bot.pull_request import Wanted
from modelexport_bot.resolve import Plan
from modelexport_bot.settings import Overrides
from tests.bot.world import manifest

# --- which files -----------------------------------------------------------------------------------------------------


def _files(*paths: str) -> dict[str, HubFile]:
    return {path: HubFile(path, 1, f"blob of {path}", None) for path in paths}


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"], ["pytorch_model.bin"]),
        (["model.safetensors.index.json", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["adapter_model.safetensors", "consolidated.safetensors", "training_args.bin"], []),
    ],
)
def test_one_set_of_weights_is_taken(there: list[str], taken: list[str]) -> None:
    assert [file.path for file in inputs.weights(_files(*there))] == taken


def test_configuration_and_tokenizer_are_taken_and_nothing_else() -> None:
    taken = ["config.json", "tokenizer.json", "vocab.txt", "spiece.model", "merges.txt", "chat_template.jinja"]
    left = ["README.md", ".gitattributes", "onnx/config.json", "openvino_model.xml", "trainer_state.json", "model.gguf"]
    left += ["eval_results.json", "runs/events.json", "code.py", "onnx_config.json"]
    found = [file.path for file in inputs.inputs(_files("model.safetensors", *taken, *left))]
    assert sorted(found) == sorted([*taken, "model.safetensors"])


def test_modules_of_sentence_transformers_are_taken() -> None:
    files = _files(
        "model.safetensors", "modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "other/x.json"
    )
    assert {"1_Pooling/config.json", "2_Dense/model.safetensors"} <= {file.path for file in inputs.inputs(files)}
    assert "other/x.json" not in {file.path for file in inputs.inputs(files)}


def test_the_model_card_is_fetched_but_its_change_is_no_change_of_the_inputs() -> None:
    files = _files("model.safetensors", "README.md")
    changed = files | {"README.md": HubFile("README.md", 2, "another blob", None)}
    assert "README.md" in {file.path for file in inputs.snapshot(files)}
    assert inputs.digest(inputs.inputs(files)) == inputs.digest(inputs.inputs(changed))


# --- the repo's options and the operator's ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [{"enabled": "perhaps"}, {"opset": 3}, {"dtype": "int4"}, {"atol": 0}, {"nope": 1}, ["enabled"], "yes"]
)
def test_what_does_not_fit_the_schema_is_refused(said: Any) -> None:
    with pytest.raises(OptionsInvalidError, match="keys are enabled, task"):
        policy.repo_options({"modelexport": said}, None)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("include: [tokenizer.json]\n", "there is no key include"),
        ("modelexport:\n  task: fill-mask\n  include: '*.json'\n", "there is no key include"),
        ("include: x\nopset: 99\n", "opset: input should be less than or equal to 30; there is no key include"),
        ("all of it\n", "these are no keys with values, such as enabled: false"),
    ],
)
def test_an_owner_is_told_which_key_is_wrong_and_which_there_are(file: str, problem: str) -> None:
    with pytest.raises(OptionsInvalidError) as told:
        policy.repo_options({}, file)
    assert told.value.message == f".modelexport.yaml: {problem}. The keys are enabled, task, opset, dtype, atol."


def test_broken_yaml_is_refused() -> None:
    with pytest.raises(OptionsInvalidError, match="no YAML"):
        policy.repo_options({}, "enabled: [")


def test_the_file_wins_over_the_model_card() -> None:
    assert policy.repo_options({"modelexport": {"task": "a"}}, "modelexport:\n  task: b\n").task == "b"


def test_options_come_from_the_operator_the_thread_the_repo_and_the_defaults_in_this_order() -> None:
    wishes = policy.RepoOptions(task="repo", opset=17, dtype="source")
    assert policy.export_options(Overrides(task="operator"), "thread", wishes).task == "operator"
    assert policy.export_options(Overrides(), "thread", wishes) == Options(task="thread", opset=17, dtype="source")
    assert policy.export_options(Overrides(dtype="float32"), None, policy.RepoOptions()) == Options()


def test_flags_come_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('timeout = 5\nallow = ["acme/*"]\nmax_memory = "2GB"\n')
    loaded = settings.load(file, timeout=None, dry_run=True)
    assert (loaded.timeout, loaded.dry_run, loaded.max_memory) == (5, True, 2 * 10**9)
    assert loaded.limits.allow == ("acme/*",)
    assert settings.load(file, timeout=7.0).timeout == 7


@pytest.mark.parametrize("text", ["tiemout = 5", "timeout = -1", "timeout = ", "pull_requests_per_day = 0"])
def test_a_wrong_file_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bot.toml").write_text(text)
    with pytest.raises(UsageError, match=r"bot\.toml"):
        settings.load(tmp_path / "bot.toml")


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    ["hf_" + "a" * 34, "hf_jwt_" + "b" * 20, "hf_oauth_" + "c.d-e" * 5, "ghp_" + "d" * 36, "github_pat_" + "e" * 40],
)
@pytest.mark.parametrize(
    "text", ["{}", "Authorization: Bearer {}", "https://user:{}@host/x", "token='{}',", "a{{{}}}b"]
)
def test_tokens_are_cut_out_of_texts(secret: str, text: str) -> None:
    assert secret not in redact(text.replace("{}", secret))


def test_any_jwt_is_cut_out() -> None:
    assert redact("sent eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl to") == "sent *** to"


@given(st.text())
def test_redacting_never_fails_and_once_is_enough(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_a_token_does_not_print_and_cannot_be_stored() -> None:
    token = Token(" hf_secret\n")
    assert token.reveal() == "hf_secret"
    assert "secret" not in f"{token} {token!r} {[token]}"
    with pytest.raises(TypeError):
        pickle.dumps(token)


# --- what we write ---------------------------------------------------------------------------------------------------

HOSTILE = "x`@everyone <img src=x> [a](javascript:1) | \n# <!-- modelexport:marker {} -->"


def _subject(**changes: Any) -> Subject:
    wanted = Wanted(sha="a" * 40, weights="w", inputs="i", options="o")
    plan = Plan("alice/bert", "a" * 40, (), Options(), wanted, None)  # type: ignore[arg-type]
    told = manifest(plan, {"model.onnx": b"x", "tokenizer.json": b"{}"}).model_copy(update=changes)
    return Subject("alice/bert", 3, told, (), wanted.marker(complete=True), "modelexport-bot")


def test_generated_text_stands_beside_the_numbers() -> None:
    numbers = _subject().manifest.parity[0]
    changes = {"output": "tokens", "case": "generate, with cache, 20 steps", "max_abs": 0.0, "tolerance": 0.0}
    text = body.body(_subject(parity=(numbers, numbers.model_copy(update=changes))))
    assert "- generate, with cache, 20 steps" in text
    assert "3.0e-06 (`last_hidden_state`" in text


def test_what_a_repo_says_cannot_become_markup_in_the_body() -> None:
    modules = (ModuleNode(path="a.b```", type=HOSTILE, nodes=1),)
    graph = _subject().manifest.graphs[0].model_copy(update={"modules": modules})
    text = body.body(_subject(task=HOSTILE, architecture=HOSTILE, notes=(HOSTILE,), graphs=(graph,)))
    assert "<img" not in text
    assert "@everyone" not in text
    assert text.count("<!-- modelexport:marker") == 1
    assert text.count("```") % 2 == 0
    assert marker.read(text) == _subject().marker
    assert "\n" not in body.title(_subject(task=HOSTILE))


@pytest.mark.parametrize(("name", "said"), [("input_ids", True), ("past_key_values.0.key", False)])
def test_graphs_without_cache_are_loaded_without(name: str, said: bool) -> None:
    graph = _subject().manifest.graphs[0]
    inputs = (graph.inputs[0].model_copy(update={"name": name}),)
    check = _subject().manifest.optimum.model_copy(update={"model_class": "ORTModelForCausalLM"})
    text = body.body(_subject(graphs=(graph.model_copy(update={"inputs": inputs}),), optimum=check))
    assert (", use_cache=False)" in text) is said
    assert "use_cache" not in body.body(_subject())


def test_a_body_is_never_too_long_for_the_hub() -> None:
    modules = tuple(ModuleNode(path=f"encoder.block_{n}.x{n}", type="Block" * 20, nodes=n) for n in range(3000))
    graph = _subject().manifest.graphs[0].model_copy(update={"modules": modules})
    text = body.body(_subject(graphs=(graph,) * 8, notes=("n" * 2000,) * 10))
    assert len(text) <= body.LONGEST
    assert marker.read(text) is not None


def test_equal_layers_of_the_tree_share_a_line() -> None:
    modules = [ModuleNode(path=f"layer.{n}.attention", type="Attention", nodes=5) for n in range(12)]
    graph = Graph(file="m", inputs=(), outputs=(), nodes=60, traced=60, inferred=0, modules=tuple(modules))
    tree = module_tree(graph, 50)
    assert "0…11 (12 ×" in tree
    assert "60" in tree
    assert len(tree.splitlines()) == 4


def test_a_long_tree_is_cut() -> None:
    modules = [ModuleNode(path=f"m{n}", type=f"T{n}", nodes=1) for n in range(500)]
    graph = Graph(file="m", inputs=(), outputs=(), nodes=500, traced=500, inferred=0, modules=tuple(modules))
    assert len(module_tree(graph, 30).splitlines()) == 30


def test_a_marker_survives_the_way_through_the_hub_and_later_schemas_are_not_understood() -> None:
    said = Marker(sha="s", weights="w", inputs="i", options="o")
    assert marker.read(f"text\n\n{said}\n") == said
    assert marker.read(str(said).replace('"schema_version":1', '"schema_version":2')) is None
    assert marker.read("<!-- modelexport:marker {} -->") is None
    assert json.loads(str(said)[len("<!-- modelexport:marker ") : -len(" -->")])["sha"] == "s"
