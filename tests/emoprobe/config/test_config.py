"""The configuration: what is accepted, and the one readable line for each mistake."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.config.errors import ConfigError, shown
from emoprobe.config.execution.slurm import SlurmShape
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config, parse_config, study_of
from emoprobe.config.reading import read_yaml, typed
from emoprobe.config.section import Added, Section
from emoprobe.workflow.process import plan_folder, write_plan
from emoprobe.workflow.triggers import EXECUTION, Triggers, digest

ROOT = Path(__file__).parents[3]
CONFIGS = sorted([ROOT / "config/config.yaml", *(ROOT / "config/experiments").glob("*.yaml")])


def lines(values: Any) -> list[str]:
    """The error lines of a config that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    return caught.value.lines


def variants(**others: Any) -> dict[str, Any]:
    """A config with a control and other variants."""
    return {"variants": {"control": {}, **others}}


RENTED = {"backend": "skypilot", "min_vram": 24, "max_price": 1.0}
# config → what its one error line must hold
MALFORMED: list[tuple[Any, list[str]]] = [
    ({"analysis": {"references": ["control", "filler"]}}, ["analysis.references", "filler", "no variant"]),
    ({"features": {"enabled": True}}, ["features", "layer must be given"]),
    (
        {"features": {"autoencoder": {"k": 9, "width": 9}}},
        ["features.autoencoder", "k = 9 must be smaller than width = 9"],
    ),
    ({"features": {"autoencoder": {"folder": "x"}}}, ["features.autoencoder", "are for a source"]),
    ({"features": {"autoencoder": {"seeds": 2}}}, ["features.autoencoder.seeds = 2", "greater than or equal to 3"]),
    ({"experiment": {"name": "features"}}, ["experiment.name", "folder of the results"]),
    ([], ["config", "mapping"]),
    (None, ["config", "mapping"]),
    ("text", ["config", "mapping"]),
    ({"experimnt": {}}, ["experimnt", "did you mean 'experiment'"]),
    ({"variant": {}}, ["variant", "did you mean 'variants'"]),
    ({"zzz": 1}, ["zzz", "known: experiment, model"]),
    ({"experiment": {"nam": "x"}}, ["experiment.nam", "did you mean 'name'"]),
    ({"experiment": {"name": "a/b"}}, ["experiment.name", "a/b", "letters"]),
    ({"experiment": {"name": ".."}}, ["experiment.name", "letters"]),
    ({"experiment": {"name": ""}}, ["experiment.name", "letters"]),
    ({"experiment": {"name": "a" * 65}}, ["experiment.name", "64"]),
    ({"experiment": {"name": "models"}}, ["experiment.name", "folder of the results"]),
    ({"experiment": {"name": "a b"}}, ["experiment.name", "letters"]),
    ({"experiment": {"name": "ünï"}}, ["experiment.name", "letters"]),
    ({"experiment": {"name": 5}}, ["experiment.name = 5", "string"]),
    ({"experiment": {"seed": -1}}, ["experiment.seed = -1", "greater than or equal to 0"]),
    ({"experiment": {"seed": 2**31}}, ["experiment.seed", "less than or equal"]),
    ({"experiment": {"seed": 1.5}}, ["experiment.seed = 1.5", "integer"]),
    ({"experiment": {"seed": True}}, ["experiment.seed = True", "integer"]),
    ({"experiment": {"seed": "42"}}, ["experiment.seed = '42'", "integer"]),
    ({"experiment": None}, ["experiment", "dictionary"]),
    ({"experiment": []}, ["experiment", "dictionary"]),
    ({"model": {"source": ""}}, ["model.source", "at least 1 character"]),
    ({"model": {"sorce": "x"}}, ["model.sorce", "did you mean 'source'"]),
    ({"model": {"dtype": "fp32"}}, ["model.dtype = 'fp32'", "float32", "bfloat16"]),
    ({"model": {"revision": 3}}, ["model.revision = 3", "string"]),
    ({"model": "gpt2"}, ["model = 'gpt2'", "dictionary"]),
    ({"dataset": {"samples": 0}}, ["dataset.samples = 0", "greater than or equal to 1"]),
    ({"dataset": {"samples": "8"}}, ["dataset.samples = '8'", "integer"]),
    ({"dataset": {"samples": 8.5}}, ["dataset.samples = 8.5", "integer"]),
    ({"dataset": {"samples": 10**6}}, ["dataset.samples", "less than or equal"]),
    ({"dataset": {"sample": 8}}, ["dataset.sample", "did you mean 'samples'"]),
    ({"dataset": {"split": ""}}, ["dataset.split", "at least 1 character"]),
    ({"dataset": {"id_prefix": "../x"}}, ["dataset.id_prefix", "letters"]),
    ({"dataset": {"question": 1}}, ["dataset.question = 1", "string"]),
    ({"prompt": {"template": "no placeholder"}}, ["prompt.template", "{question}", "none"]),
    ({"prompt": {"template": "{questoin}"}}, ["prompt.template", "{questoin}"]),
    ({"prompt": {"template": "{question} {other}"}}, ["prompt.template", "{other}"]),
    ({"prompt": {"template": "{question"}}, ["prompt.template", "braces"]),
    ({"prompt": {"template": "{}"}}, ["prompt.template", "{question}"]),
    ({"prompt": {"template": ""}}, ["prompt.template", "at least 1 character"]),
    ({"prompt": {"system": 5}}, ["prompt.system = 5", "string"]),
    ({"prompt": {"sytem": "x"}}, ["prompt.sytem", "did you mean 'system'"]),
    ({"variants": {}}, ["variants", "control"]),
    ({"variants": {"calm": {}}}, ["variants", "control"]),
    ({"variants": ["control"]}, ["variants", "dictionary"]),
    ({"variants": {1: {}, "control": {}}}, ["variants", "string"]),
    (variants(**{"a/b": {}}), ["variants", "a/b", "letters"]),
    (variants(**{"..": {}}), ["variants", "letters"]),
    (variants(**{"-a": {}}), ["variants", "letters"]),
    (variants(activations={}), ["variants", "activations", "folder of the results"]),
    (variants(Samples={}), ["variants", "Samples", "folder of the results"]),
    (variants(calm={}, Calm={}), ["variants", "case only"]),
    (variants(Control={}), ["variants", "case only"]),
    (variants(calm={"txt": "x"}), ["variants.calm.txt", "did you mean 'text'"]),
    (variants(calm={"placment": "user_prefix"}), ["variants.calm.placment", "did you mean 'placement'"]),
    (variants(calm={"text": ""}), ["variants.calm.text", "at least 1 character"]),
    (variants(calm={"text": "  \n"}), ["variants.calm.text", "white space"]),
    (variants(calm={"text": 5}), ["variants.calm.text = 5", "string"]),
    (variants(calm={"text": ["a"]}), ["variants.calm.text", "string"]),
    (variants(calm={"texts": []}), ["variants.calm.texts", "at least 1 item"]),
    (variants(calm={"texts": "x"}), ["variants.calm.texts", "list"]),
    (variants(calm={"texts": ["x", " "]}), ["variants.calm.texts", "white space"]),
    (variants(calm={"texts": ["x", 1]}), ["variants.calm.texts.1 = 1", "string"]),
    (variants(calm={"text": "x", "texts": ["y"]}), ["variants.calm", "text and texts"]),
    (variants(calm={"text": "x", "transform": "m:f"}), ["variants.calm", "text and transform"]),
    (variants(calm={"text": "x", "placement": "prefix"}), ["variants.calm.placement", "user_prefix", "system_suffix"]),
    (variants(calm={"text": "x", "valence": "happy"}), ["variants.calm.valence", "negative", "positive"]),
    (variants(calm={"text": "x", "arousal": "medium"}), ["variants.calm.arousal", "high", "low"]),
    (variants(calm={"transform": "module"}), ["variants.calm.transform", "module:function"]),
    (variants(calm={"transform": "mod ule:f"}), ["variants.calm.transform", "module:function"]),
    (variants(calm={"transform": ":f"}), ["variants.calm.transform", "module:function"]),
    (variants(calm={"transform": "m:"}), ["variants.calm.transform", "module:function"]),
    (variants(calm={"transform": "m:1f"}), ["variants.calm.transform", "module:function"]),
    (variants(calm="be calm"), ["variants.calm", "dictionary"]),
    ({"generation": {"backend": "ollama"}}, ["generation.backend", "vllm", "nnsight"]),
    ({"generation": {"max_tokens": 0}}, ["generation.max_tokens = 0", "greater than or equal to 1"]),
    ({"generation": {"max_token": 5}}, ["generation.max_token", "did you mean 'max_tokens'"]),
    ({"generation": {"temperature": -0.1}}, ["generation.temperature", "greater than or equal to 0"]),
    ({"generation": {"temperature": 2.5}}, ["generation.temperature", "less than or equal to 2"]),
    ({"generation": {"temperature": float("nan")}}, ["generation.temperature"]),
    ({"generation": {"top_p": 0}}, ["generation.top_p", "greater than 0"]),
    ({"generation": {"top_p": 1.1}}, ["generation.top_p", "less than or equal to 1"]),
    ({"workers": {"timeout": 0}}, ["workers.timeout", "greater than 0"]),
    ({"generation": {"stop": "x"}}, ["generation.stop", "list"]),
    ({"generation": {"stop": [""]}}, ["generation.stop.0", "at least 1 character"]),
    ({"workers": {"count": 0}}, ["workers.count = 0", "greater than or equal to 1"]),
    ({"workers": {"counts": 2}}, ["workers.counts", "did you mean 'count'"]),
    ({"workers": {"endpoints": "http://a"}}, ["workers.endpoints", "list"]),
    ({"workers": {"endpoints": ["localhost:8000"]}}, ["workers.endpoints", "http://"]),
    ({"workers": {"endpoints": ["ftp://a"]}}, ["workers.endpoints", "http://"]),
    ({"workers": {"endpoints": ["http://user:key@a"]}}, ["workers.endpoints", "without credentials"]),
    ({"workers": {"endpoints": ["http://a", "http://a/"]}}, ["workers.endpoints", "twice"]),
    ({"workers": {"slurm": {"cpus": 1}}}, ["workers.slurm", "list"]),
    ({"workers": {"slurm": [{"cpu": 1}]}}, ["workers.slurm.0.cpu", "did you mean 'cpus'"]),
    ({"workers": {"slurm": [{"time": 14400}]}}, ["workers.slurm.0.time", "string"]),
    ({"workers": {"slurm": [{"time": "4h"}]}}, ["workers.slurm.0.time", "hours:minutes:seconds"]),
    ({"workers": {"slurm": [{"time": "1:30"}]}}, ["workers.slurm.0.time", "at least 2 minutes"]),
    ({"workers": {"slurm": [{"memory": "16 GB"}]}}, ["workers.slurm.0.memory"]),
    ({"workers": {"slurm": [{"extra": ["-A lab"]}]}}, ["workers.slurm.0.extra", "--name=value"]),
    ({"workers": {"slurm": [{"extra": ["--export=ALL"]}]}}, ["workers.slurm.0.extra", "--export is set by the pool"]),
    ({"workers": {"requests": 0}}, ["workers.requests = 0", "greater"]),
    ({"workers": {"attempts": 0}}, ["workers.attempts = 0", "greater"]),
    ({"workers": {"port": 70000}}, ["workers.port", "less than or equal to 65535"]),
    ({"workers": {"gpu_memory": 1.0}}, ["workers.gpu_memory", "less than 1"]),
    ({"workers": {"log_level": "loud"}}, ["workers.log_level", "debug"]),
    (
        {"generation": {"engine": {"extra_args": ["--api-key", "x"]}}},
        ["generation.engine.extra_args", "--api-key", "lists of processes"],
    ),
    (
        {"generation": {"engine": {"extra_args": ["--host=0.0.0.0"]}}},
        ["generation.engine.extra_args", "--host", "loopback"],
    ),
    (
        {"generation": {"engine": {"extra_args": ["--trust_remote_code"]}}},
        ["generation.engine.extra_args", "--trust-remote-code", "not run"],
    ),
    ({"capture": {"enabled": "yes"}}, ["capture.enabled = 'yes'", "boolean"]),
    ({"capture": {"layers": "some"}}, ["capture.layers", "`all` or a list"]),
    ({"capture": {"layers": []}}, ["capture.layers", "`all` or a list"]),
    ({"capture": {"layers": [1, 1]}}, ["capture.layers", "different"]),
    ({"capture": {"layers": [1, "a"]}}, ["capture.layers"]),
    ({"capture": {"hook_points": []}}, ["capture.hook_points", "at least 1 item"]),
    ({"capture": {"hook_points": ["mlp"]}}, ["capture.hook_points", ".input or .output"]),
    ({"capture": {"hook_points": ["mlp.output", "mlp.output"]}}, ["capture.hook_points", "twice"]),
    ({"capture": {"hook_points": ["__class__.output; x"]}}, ["capture.hook_points", ".input or .output"]),
    ({"capture": {"positions": "last"}}, ["capture.positions", "last_prompt"]),
    ({"capture": {"positions": ["last"]}}, ["capture.positions", "response_mean"]),
    ({"capture": {"positions": []}}, ["capture.positions", "last_prompt"]),
    ({"capture": {"positions": [0, 0]}}, ["capture.positions"]),
    ({"capture": {"dtype": "int8"}}, ["capture.dtype", "float16"]),
    ({"probes": {"targets": ["mood"]}}, ["probes.targets.0 = 'mood'", "valence"]),
    ({"probes": {"targets": []}}, ["probes.targets", "at least 1 item"]),
    ({"probes": {"folds": 2}}, ["probes.folds = 2", "greater than or equal to 3"]),
    ({"probes": {"shrinkage": 0.0}}, ["probes.shrinkage", "greater than 0"]),
    ({"probes": {"shrinkage": "a"}}, ["probes.shrinkage", "number"]),
    (
        {"generation": {"backend": "nnsight"}, "workers": {"endpoints": ["http://a"]}},
        ["nnsight", "workers.capture_endpoints"],
    ),
    ({"workers": {"capture_files": "fetch"}}, ["workers.capture_files fetch", "workers.capture_endpoints"]),
    (
        {"workers": {"capture_files": "push", "capture_endpoints": ["http://a"]}},
        ["workers.capture_files push", "storage.url"],
    ),
    (
        {"workers": {"capture_files": "shared"}, "deploy": {"backend": "ssh", "host": "gpu"}},
        ["workers.capture_files shared", "remove it"],
    ),
    ({"deploy": {"backend": "ssh"}}, ["needs a host"]),
    ({"deploy": {"backend": "ssh", "host": "-oProxyCommand=x"}}, ["no host name"]),
    ({"deploy": {"backend": "ssh", "host": "gpu; rm -rf /"}}, ["no host name"]),
    ({"deploy": {"backend": "ssh", "host": "gpu", "folder": "/"}}, ["below the home directory"]),
    ({"deploy": {"backend": "ssh", "host": "gpu", "folder": "../x"}}, ["below the home directory"]),
    ({"deploy": {"backend": "ssh", "host": "gpu", "folder": "a b"}}, ["below the home directory"]),
    (
        {"deploy": {"backend": "ssh", "host": "gpu", "environment": ["HF_TOKEN=abc"]}},
        ["no name of an environment variable"],
    ),
    ({"deploy": {"backend": "skypilot", "min_vram": 24}}, ["needs max_price"]),
    ({"deploy": {**RENTED, "idle_minutes": None}}, ["needs idle_minutes"]),
    ({"deploy": {**RENTED, "host": "gpu"}}, ["remove the key"]),
    ({"deploy": {"backend": "cloud"}}, ["backend"]),
    ({"deploy": {"backend": "ssh", "host": "gpu", "pasword": "x"}}, ["unknown key"]),
    ({"workers": {"api_key_env": "KEY", "api_key_file": "/key"}}, ["both api_key_env and api_key_file"]),
]


@pytest.mark.parametrize(("values", "words"), MALFORMED, ids=[str(case[0])[:60] for case in MALFORMED])
def test_every_mistake_is_one_readable_line(values: Any, words: list[str]) -> None:
    found = lines(values)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    for word in words:
        assert word in found[0]


def test_several_mistakes_are_all_told() -> None:
    found = lines({"experiment": {"seed": -1}, "dataset": {"samples": 0}, "modle": {}})
    assert [line.split(" ")[0].rstrip(":") for line in found] == ["experiment.seed", "dataset.samples", "modle"]


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_shipped_configs_are_valid(path: Path) -> None:
    assert load_config(path).variants


def test_a_resolved_config_is_the_same_config(tmp_path: Path) -> None:
    config = load_config(ROOT / "config/config.yaml")
    study = study_of(config.resolved())
    folder = plan_folder(study, tmp_path)
    write_plan(study, folder)
    assert load_config(folder / "pilot.json") == config


@pytest.mark.parametrize(
    ("sections", "kinds"),
    [
        ({"capture": {"enabled": False}}, ["vllm"]),
        ({}, ["vllm", "nnsight"]),
        ({"capture": {"enabled": False}, "features": {"enabled": True, "layer": 1}}, ["vllm", "nnsight"]),
        ({"generation": {"backend": "nnsight"}}, ["nnsight"]),
    ],
)
def test_an_experiment_needs_servers_of_some_kinds(sections: dict[str, Any], kinds: list[str]) -> None:
    assert parse_config(sections).server_kinds == kinds


def test_an_empty_variant_may_be_left_blank() -> None:
    assert parse_config({"variants": {"control": None}}) == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {source: a}\nmodel: {source: b}\n", ["line 2", "'model'", "twice"]),
        ("variants:\n  control: {}\n  calm: {}\n  calm: {text: x}\n", ["line 4", "'calm'", "twice"]),
        ("a: [1", ["no valid YAML"]),
        ("a: !!python/object:os.system {}", ["line 1", "tag", "is not accepted"]),
        ("a: !!binary aGk=", ["the tag", "is not accepted"]),
        ("a: !!bool 3", ["'3' is no bool"]),
        ("a: {? [1] : 2}", ["line 1", "a key is a list or a mapping"]),
        ("a: 1\n? {b: 1}\n: 2", ["line 2", "a key is a list or a mapping"]),
        ("variants:\n  no: {}\n", ["line 2", "the key no is read as False", "quotes"]),
        ("variants:\n  1_0: {}\n", ["line 2", "the key 1_0 is read as 10", "quotes"]),
        ("variants:\n  1.5: {}\n", ["line 2", "the key 1.5 is read as 1.5", "quotes"]),
        ("variants:\n  False: {}\n", ["line 2", "the key False is read as False", "quotes"]),
        ("variants:\n  1: {}\n  '1': {}\n", ["line 3", "'1'", "twice"]),
        ("experiment:\n  seed: " + "9" * 5000, ["line 2", "a number of 5000 characters"]),
        ("a: 0x" + "f" * 100_000, ["a number of 100002 characters"]),
        ("a: .nan", ["line 1", ".nan is no finite number"]),
        ("a: [1, -.inf]", ["-.inf is no finite number"]),
        ("a: 1e999", ["1e999 is no finite number"]),
        ("[" * 10_000 + "]" * 10_000, ["line 1", "nested deeper than 64 levels"]),
        ("{a: " * 10_000, ["nested deeper than 64 levels"]),
        ("\n".join(f"{' ' * level}a:" for level in range(200)), ["line 64", "nested deeper than 64 levels"]),
        ("a: &a [1, *a]", ["line 1", "an alias of itself"]),
        ("a: &a {<<: *a}", ["an alias of itself"]),
        ("a: *b", ["line 1", "undefined alias 'b'"]),
        ("a: {<<: 3}", ["`<<` merges a mapping"]),
        ("a: {<<: [3]}", ["`<<` merges a mapping"]),
        ("x: &x {}\na: {<<: *x, <<: *x}", ["line 2", "'<<' is named twice", "[*a, *b]"]),
        ("a: 1\n---\na: 2", ["line 2", "another document", "remove the `---`"]),
        ("a:\n\tb: 1", ["line 2", "indent with blanks, not tabs"]),
        ("a: \0", ["no valid YAML", "#x0000"]),
        ("api_key: [sk-secret-1", ["no valid YAML"]),
        ("#" * (3 << 20), ["larger than 2 MiB"]),
    ],
    ids=lambda case: str(case)[:30],
)
def test_bad_yaml_is_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert len(caught.value.lines) == 1
    assert len(caught.value.lines[0]) < 400
    assert "secret" not in caught.value.lines[0]
    for word in [str(path), *words]:
        assert word in caught.value.lines[0]


@pytest.mark.parametrize(
    "levels",
    [
        "- &a{} [*a{}, *a{}]",  # billion laughs
        "- &a{} {{x: *a{}, y: *a{}}}",
        "- &a{} {{<<: [*a{}, *a{}]}}",
    ],
)
def test_aliases_that_double_are_refused_in_bounded_time(tmp_path: Path, levels: str) -> None:
    first = "- &a0 {z: 1}" if "<<" in levels else "- &a0 [1]"
    bomb = [first, *(levels.format(level, level - 1, level - 1) for level in range(1, 60))]
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(bomb))
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"with every alias written out, this holds more than 200000 values"):
        read_yaml(path)
    assert time.process_time() - started < 2


def parsed(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_yaml(path)


def test_merge_keys(tmp_path: Path) -> None:
    text = """
joy: &joy {text: What a day., valence: positive}
late: &late {placement: system_suffix, text: Bye.}
one: {<<: *joy, placement: system_suffix}
two: {text: Hm., <<: [*joy, *late]}
three: &three {<<: *late, text: Ah.}
four: {<<: *three, valence: neutral}
"""
    values = parsed(tmp_path, text)
    assert values == yaml.safe_load(text)
    assert [list(values[name]) for name in values] == [list(entry) for entry in yaml.safe_load(text).values()]
    assert values["two"] == {"text": "Hm.", "valence": "positive", "placement": "system_suffix"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-01", "2024-01-01"),
        ("04:00:00", "04:00:00"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("-007", "-007"),
        ("0", 0),
        ("-0.5", -0.5),
        ("0x1f", 31),
        ("1_000", 1000),
        ("1e-3", 0.001),
        ("2.5E+2", 250.0),
        ("'1e-3'", "1e-3"),
        ("=", "="),
        ("<<", "<<"),
        ("yes", True),
        ("~", None),
        ("", None),
        ("!!str 3", "3"),
        ("'a\u2028b'", "a\u2028b"),
    ],
)
def test_what_a_plain_scalar_is(tmp_path: Path, text: str, value: Any) -> None:
    found = parsed(tmp_path, f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is named twice"),
        ('{"a": NaN}', "NaN is no finite number"),
        ('{"a": ' + "9" * 5000 + "}", "too many digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ', "is no valid JSON"),
        ("", "is no valid JSON"),
    ],
    ids=lambda case: case[:20],
)
def test_bad_json_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_yaml(path)
    assert len(caught.value.lines) == 1


def test_text_of_json_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": "x\u2028\x85\x7fy", "b": 1e-3}')
    assert read_yaml(tmp_path / "c.json") == {"a": "x\u2028\x85\x7fy", "b": 0.001}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_an_empty_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"^{path}: must be a mapping of sections, it is empty$"):
        load_config(path)


def test_values_of_the_command_line() -> None:
    given = {"dataset": {"samples": "2", "source": "./x.jsonl"}, "capture": {"layers": ["0", "-1"]}, "model": None}
    assert typed(given) == {
        "dataset": {"samples": 2, "source": "./x.jsonl"},
        "capture": {"layers": [0, -1]},
        "model": None,
    }
    for value, words in (("[1", "no valid YAML"), ("9" * 5000, "5000 characters"), (".nan", "no finite number")):
        with pytest.raises(ConfigError, match=rf"^--config experiment\.seed: .*{words}") as caught:
            typed({"experiment": {"seed": value}})
        assert len(caught.value.lines) == 1


def test_whole_numbers_are_keys_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("analysis: {looks: {96: 0.2, '384': 0.8}}\n")
    values = read_yaml(path)
    assert values == {"analysis": {"looks": {"96": 0.2, "384": 0.8}}}
    assert parse_config(values).analysis.looks == {96: 0.2, 384: 0.8}


def test_a_text_that_yaml_reads_as_something_else(tmp_path: Path) -> None:
    (line,) = lines({"variants": {"control": {}, "curt": parsed(tmp_path, "text: no")}})
    assert line == "variants.curt.text = False: input should be a valid string; write it in quotes"


# Where somebody may paste a key; the error names the place and what to do, and never repeats what is there.
SECRET = "hunter2-0a1b2c3d4e5f"
PASTED: list[tuple[dict[str, Any], str]] = [
    ({"workers": {"api_key_env": SECRET}}, "workers.api_key_env"),
    ({"workers": {"api_key_env": f"sk-{SECRET}"}}, "workers.api_key_env"),
    ({"workers": {"api_key_env": 12345678}}, "workers.api_key_env"),
    ({"workers": {"api_key_file": [SECRET]}}, "workers.api_key_file"),
    ({"workers": {"api_key": SECRET}}, "workers.api_key"),
    ({"workers": {"endpoints": [f"http://user:{SECRET}@host/v1"]}}, "workers.endpoints"),
    ({"workers": {"endpoints": [f"user:{SECRET}@host/v1"]}}, "workers.endpoints"),
    ({"workers": {"endpoints": [f"http://host/v1?key={SECRET}"]}}, "workers.endpoints"),
    ({"workers": {"capture_endpoints": [f"http://host#{SECRET}"]}}, "workers.capture_endpoints"),
    ({"workers": {"capture_endpoints": [f"http://host\\{SECRET}@x"]}}, "workers.capture_endpoints"),
    ({"workers": {"hardware": {f"http://u:{SECRET}@host": "GPU"}}}, "workers.hardware"),
    ({"storage": {"url": f"s3://user:{SECRET}@bucket/x"}}, "storage.url"),
    ({"storage": {"url": f"s3://bucket/x?secret={SECRET}"}}, "storage.url"),
    ({"storage": {"url": f"{SECRET}"}}, "storage.url"),
    ({"deploy": {"host": f"user:{SECRET}@gpu1"}}, "deploy.host"),
    ({"deploy": {"environment": [f"HF_TOKEN={SECRET}"]}}, "deploy.environment"),
    ({"deploy": {"environment": [f"hf_{SECRET.replace('-', '')}"]}}, "deploy.environment"),
    ({"deploy": {"environment": {"HF_TOKEN": SECRET}}}, "deploy.environment"),
    ({"generation": {"engine": {"extra_args": ["--api-key", SECRET]}}}, "generation.engine.extra_args"),
    ({"generation": {"engine": {"extra_args": [f"--hf-token={SECRET}"]}}}, "generation.engine.extra_args"),
    ({"generation": {"engine": {"extra_args": ["--hf_token", SECRET]}}}, "generation.engine.extra_args"),
]


@pytest.mark.parametrize(("values", "place"), PASTED, ids=lambda case: str(case)[:60])
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(values: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    (line,) = caught.value.lines
    assert line.startswith(f"{place}:") or line.startswith(f"{place}.0:")
    assert not any(part in line for part in ("hunter", "0a1b2c3d", "12345678"))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["AKIAIOSFODNN7EXAMPLE", "a_key", "MY KEY", "", "1KEY", "ÜBER", "KEY=1", "X" * 65])
def test_what_names_no_variable(name: str) -> None:
    for section in ({"workers": {"api_key_env": name}}, {"deploy": {"environment": [name]}}):
        (line,) = lines(section)
        assert "export MY_KEY" in line
        assert not name or name not in line.replace("MY_KEY", "")


@pytest.mark.parametrize("name", ["HF_TOKEN", "KEY", "_K2", "AWS_SECRET_ACCESS_KEY", "https_proxy", "no_proxy"])
def test_what_names_a_variable(name: str) -> None:
    parse_config({"workers": {"api_key_env": name}, "deploy": {"environment": [name]}})


def test_credentials_are_cut_out_of_what_a_message_shows() -> None:
    text = shown(["https://me:pw@host/x?token=abc", "plain"])
    assert text == "['https://…host/x?…', 'plain']"
    assert len(shown("x" * 500)) == 80
    assert shown(10**5000) == "a large int"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    for section, key in (("workers", "timeout"), ("deploy", "idle_minutes"), ("generation", "temperature")):
        (line,) = lines({section: {key: value}})
        assert line.startswith(f"{section}.{key}")
    (line,) = lines({"steering": {"doses": [value]}})
    assert "steering.doses" in line


def test_a_section_says_itself_whether_it_changes_results() -> None:
    sections = {
        name: field.annotation for name, field in Config.model_fields.items() if name not in ("variants", "graders")
    }
    assert all(isinstance(section, type) and issubclass(section, Section) for section in sections.values())
    execution = {name for name, section in sections.items() if not section.changes_results}  # type: ignore[union-attr]
    assert execution == EXECUTION == {"workers", "deploy", "storage"}
    assert not SlurmShape.changes_results
    plain = parse_config({})
    assert plain.deploy.backend is None
    assert Triggers.of(parse_config({"deploy": RENTED})) == Triggers.of(plain)


def test_arousal_changes_the_labels_alone_and_nothing_where_it_is_left_out() -> None:
    plain, high = (
        parse_config(variants(joy={"text": "Ah!", "valence": "positive", **extra}))
        for extra in ({}, {"arousal": "high"})
    )
    added = {"arousal", "asks", "template", "prefill", "turn"}
    assert plain.described()["variants"]["joy"].keys() == plain.resolved()["variants"]["joy"].keys() - added
    assert high.described()["variants"]["joy"]["arousal"] == "high"
    before, after = Triggers.of(plain), Triggers.of(high)
    assert {name for name, value in vars(before).items() if vars(after)[name] != value} == {"labels", "experiment"}
    assert before.labels == digest([["control", "joy"], [None, "positive"]])  # as in version 0.2


def test_other_encodings_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("a: Ärger".encode("latin-1"))
    for missing, word in ((path, "UTF-8"), (tmp_path / "none.yaml", "No such file")):
        with pytest.raises(ConfigError, match=word):
            load_config(missing)


API: dict[str, Any] = {
    "model": {"source": "gpt-x"},
    "generation": {"backend": "api"},
    "capture": {"enabled": False},
    "workers": {"endpoints": ["https://api.example.com/v1"]},
}


def test_an_api_experiment_is_refused_in_one_line_that_names_every_change() -> None:
    assert parse_config(API).server_kinds == ["api"]
    wrong = {
        "model": {"source": "./mine"},
        "generation": {"backend": "api", "thinking": "on", "engine": {"max_model_len": 512}},
        "graders": ["number", "logprob"],
        "workers": {"max_cost": 1.0, "model_name": "gpt-x", "capture_endpoints": ["http://a:1"]},
    }
    (line,) = lines(wrong)
    assert "no token ids, no activations" in line
    for change in (
        "set capture.enabled: false", "remove logprob from graders", "remove generation.thinking",
        "remove generation.engine", "remove workers.capture_endpoints", "remove workers.model_name",
        "set model.source", "name the API in workers.endpoints", "workers.prices a price for ./mine",
    ):  # fmt: skip
        assert change in line


def test_an_api_takes_further_turns_but_continues_no_beginning() -> None:
    script = {"kind": "scripted", "turns": [{"text": "Sure?"}, {"text": "Why?", "prefill": "As"}]}
    (line,) = lines({**API, "conversation": script})
    assert "remove conversation.turns.1.prefill" in line
    del script["turns"][1]["prefill"]  # type: ignore[attr-defined]
    assert parse_config({**API, "conversation": script}).conversation.last_turn == 3


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"generation": {"api_request": {"top_k": 5}}}, "api_request is for backend: api"),
        ({"workers": {"max_cost": 1.0}}, "workers.max_cost is for generation.backend: api"),
        ({**API, "generation": {"backend": "api", "api_request": {"messages": "x"}}}, "may not hold messages"),
        ({**API, "generation": {"backend": "api", "api_request": {"max_tokens": None}}}, "max_completion_tokens: N"),
    ],
)
def test_settings_of_apis_are_for_apis_and_leave_a_limit(sections: dict[str, Any], words: str) -> None:
    (line,) = lines(sections)
    assert words in line


def test_keys_of_later_versions_enter_no_digest_at_their_default() -> None:
    """Results of earlier versions would be made again otherwise."""

    def added(section: Section) -> list[str]:
        found = []
        for name, field in type(section).model_fields.items():
            if any(mark is Added for mark in field.metadata):
                found += [name] if name in section.content() or name in section.described() else []
            elif isinstance(value := getattr(section, name), Section):
                found += added(value)
        return found

    assert added(Config()) == []
