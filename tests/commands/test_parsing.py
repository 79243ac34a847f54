"""How a configuration is read: arguments stay with their class, numbers are numbers, help begins with what is needed."""

from __future__ import annotations

import pytest
import yaml
from jsonargparse._parameter_resolvers import get_signature_parameters

import cclight
from cclight.cli import main
from cclight.commands.parsing import classes_first

SR = ["predict", "--config", "sr.yaml"]


def parsed(arguments, capsys):
    """What `--print_config` shows: the resolved configuration without defaults."""
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--print_config=skip_default"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["DPS", "PiGDM", "DDRM", "REDDiff", "Conjugate"])
@pytest.mark.parametrize("way", ["option", "class_path", "braces", "stack", "file"])
def test_a_sampler_that_takes_anothers_place_has_its_own_settings(way, name, here, capsys):
    """sr.yaml gives ConjugateMoments 5 steps, guidance, t_start and timesteps: names that others have too."""
    (here / "other.yaml").write_text(f"model: {{sampler: {{class_path: {name}}}}}")
    (here / "sampler.yaml").write_text(f"class_path: {name}")
    arguments = {
        "option": ["--model.sampler", name],
        "class_path": ["--model.sampler.class_path", name],
        "braces": ["--model.sampler", f"{{class_path: {name}}}"],
        "stack": ["--config", "other.yaml"],
        "file": ["--model.sampler", "sampler.yaml"],
    }[way]
    assert parsed([*SR, *arguments], capsys)["model"]["sampler"] == {"class_path": f"cclight.{name}"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.sampler", "DPS", "--model.sampler.init_args.steps", "50"],
        ["--model.sampler", "DPS", "--model.sampler.steps=50"],
        ["--model.sampler.init_args.steps", "50", "--model.sampler", "DPS"],
        ["--model.sampler.steps=50", "--model.sampler=DPS"],
        ["--model.sampler", "{class_path: DPS, init_args: {steps: 50}}"],
    ],
)
def test_what_is_set_in_the_same_breath_holds(arguments, here, capsys):
    assert parsed([*SR, *arguments], capsys)["model"]["sampler"] == {"class_path": "cclight.DPS", "init_args": {"steps": 50}}


def test_the_same_class_by_any_of_its_names_keeps_its_settings(here, capsys):
    (here / "more.yaml").write_text(
        "model: {sampler: {class_path: cclight.samplers.moments.ConjugateMoments, init_args: {steps: 7}}}"
    )
    for arguments in (
        ["--model.sampler", "ConjugateMoments"],
        ["--model.sampler", "cclight.ConjugateMoments"],
        ["--config", "more.yaml"],
    ):
        settings = parsed([*SR, *arguments], capsys)["model"]["sampler"]["init_args"]
        assert (settings["guidance"], settings["t_start"]) == (3.0, 0.75)


def test_operators_priors_sources_and_their_parts_start_anew_too(here, capsys):
    (here / "mine.yaml").write_text(
        "operator: {class_path: GaussianBlur, init_args: {sigma: 2.0, width: 31}}\n"
        "model: {prior: {class_path: SmallPrior, init_args: {path: {class_path: DiscretePath, init_args: {}}}},"
        " sampler: {class_path: DPS}}\n"
        "data: {source: {class_path: ImageFolder, init_args: {path: photographs}}}\n"
    )
    base = ["predict", "--config", "mine.yaml"]
    assert parsed([*base, "--operator", "UniformBlur"], capsys)["operator"] == {"class_path": "cclight.UniformBlur"}
    source = parsed([*base, "--data.source", "HFDataset", "--data.source.split", "x"], capsys)["data"]["source"]
    assert source == {"class_path": "cclight.HFDataset", "init_args": {"split": "x"}}
    mask = ["--config", "inpaint.yaml", "--operator.mask", "RandomPixels"]
    operator = parsed(["predict", *mask], capsys)["operator"]
    assert operator["init_args"]["mask"] == {"class_path": "cclight.RandomPixels"}
    assert operator["init_args"]["fill"] is True  # of the operator, which has stayed


def test_only_the_name_of_a_class_is_moved_and_only_before_its_own_arguments():
    arguments = ["--config", "a", "--m.s.steps", "3", "--m.s", "{class_path: DPS}", "--x.y=2", "--x", "Z", "--n", "-1"]
    assert classes_first(arguments) == [*arguments[:6], "--x", "Z", "--x.y=2", "--n", "-1"]
    assert classes_first(["--m.s.steps", "3", "--config", "a", "--m.s", "DPS"])[:2] == ["--m.s.steps", "3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise_std: .nan", "noise_std is nan: give a finite number"),
        ("noise_std: .inf", "noise_std is inf: give a finite number"),
        ("model: {sampler: {init_args: {guidance: -.inf}}}", "model.sampler.guidance is -inf: give a finite number"),
        ("model: {sampler: {init_args: {steps: 100000000000000000000}}}", "model.sampler.steps is 1000"),
        ("operator: {class_path: GaussianBlur, init_args: {sigma: .inf}}", "operator.sigma is inf"),
        ("data: {num_workers: 1000}", "data.num_workers is 1000: give 0 to "),
        ("data: {num_workers: -1}", "data.num_workers is -1: give 0 to "),
        ("data: {batch_size: 0}", "data.batch_size is 0: give 1 to "),
        ("trainer: {devices: 1000}", "trainer.devices is 1000: give -1 to "),
        ("noise_std: 1\nnoise_std: 2", "more.yaml: the key noise_std stands twice, in lines 1 and 2"),
    ],
)
def test_numbers_that_are_none_and_keys_that_stand_twice_are_refused(text, message, here, capsys):
    (here / "more.yaml").write_text(text)
    assert main([*SR, "--config", "more.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (here / "runs").exists()


@pytest.mark.parametrize("value", ["nan", ".nan", "inf", "-inf", ".inf"])
def test_no_option_takes_what_is_no_number(value, here, capsys):
    assert main([*SR, f"--model.sampler.guidance={value}"]) == 2
    assert "model.sampler.guidance is" in capsys.readouterr().err


def test_yaml_on_the_command_line_and_in_further_files_is_read_as_strictly(here, capsys):
    (here / "cycle.yaml").write_text("class_path: DPS\ninit_args: &x {steps: *x}\n")
    for value, message in (("{class_path: DPS, class_path: DDRM}", "class_path stands twice"), ("cycle.yaml", "holds itself")):
        assert main([*SR, "--model.sampler", value]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "fit"])
def test_help_begins_with_what_is_needed_and_all_of_it_comes_when_asked(command, here, capsys):
    texts = []
    for words in (["--help"], ["--help", "all"]):
        with pytest.raises(SystemExit, match="0"):
            main([command, *words])
        texts.append(capsys.readouterr().out)
    short, whole = texts
    assert len(short.splitlines()) < 200
    assert short.index("--config") < short.index("--model.") < short.index("--data.")
    assert "--trainer.profiler" not in short
    assert "--help all" in short
    assert whole.index("--data.") < whole.index("--trainer.profiler")
    assert "optimizer" not in whole.partition("Lightning's trainer")[0]


@pytest.mark.parametrize("name", [name for name in cclight.__all__ if isinstance(getattr(cclight, name), type)])
def test_every_setting_of_every_class_has_a_type_that_is_checked(name):
    """Of an annotation that it cannot read, jsonargparse says nothing and takes any value, as text."""
    parameters = get_signature_parameters(getattr(cclight, name), None)
    assert [parameter.name for parameter in parameters if isinstance(parameter.annotation, str)] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.sampler.steps", "abc"], "model.sampler.steps is abc: give a whole number"),
        (["--model.sampler.guidance", "abc"], "model.sampler.guidance is abc: give a number"),
        (["--model.sampler.t_end", "abc"], "model.sampler.t_end is abc: give a number"),
        (["--model.sampler.timesteps", "abc"], "model.sampler.timesteps is abc: give uniform, quadratic, logsnr or karras"),
        (["--data.num_workers", "1.5"], "data.num_workers is 1.5: give a whole number"),
        (["--data.source.files", "5"], "data.source.files is 5: give a list, as '[one, two]'"),
        (["--data.source.files", "[5]"], "data.source.files is 5: give a text"),
        (["--data.source", "ImageFolder", "--data.source.path", "[1]"], "data.source.path is [1]: give a path"),
        (["--run.resume", "maybe"], "run.resume is maybe: give true or false"),
        (["--samples", "x"], "samples is x: give a whole number"),
        (["--seed_everything", "q"], "seed_everything is q: give true or false or a whole number"),
        (
            ["--operator", "{class_path: Inpainting, init_args: {mask: {class_path: Box, init_args: {size: big}}}}"],
            "operator.mask.size is big: give a whole number",
        ),
        (
            ["--operator", "{class_path: Inpainting, init_args: {mask: 5}}"],
            "operator.mask takes a mask, and there is no 5: choose Box",
        ),
    ],
)
def test_a_setting_of_another_type_is_refused(arguments, message, here, capsys):
    assert main([*SR, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cclight predict: error: {message}")
