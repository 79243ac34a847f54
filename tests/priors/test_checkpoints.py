"""cclight/priors/checkpoints.py and cards.py: files damaged on purpose, and the published ones described."""

import http.server
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from cclight.commands.models import models_table
from cclight.priors.adm import ADM
from cclight.priors.cards import CARDS, Card
from cclight.priors.checkpoints import CheckpointError, architecture_of, fill, load_state, resolve
from cclight.priors.ncsnpp import RectifiedFlow
from cclight.priors.small import SmallPrior
from tests.priors.conftest import CONTENT, SHA256


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


# Downloads


# Names, paths and addresses


def test_a_named_checkpoint_is_downloaded_once_into_the_cache(server, cache, monkeypatch):
    monkeypatch.setitem(CARDS, "known", Card("known", "ADM", "", "none", server.url, "known.pt", 0.0, SHA256))
    for _ in range(2):
        assert resolve("known") == cache / "known.pt"
    assert (cache / "known.pt").read_bytes() == CONTENT
    assert server.requests == [0]


def test_a_checkpoint_to_be_fetched_by_hand_says_from_where_and_whereto(cache):
    with pytest.raises(CheckpointError) as error:
        resolve("celeba_hq")
    assert CARDS["celeba_hq"].source in str(error.value)
    assert str(cache / "rectified_flow_celeba_hq.pth") in str(error.value)
    cache.mkdir(parents=True)
    (cache / "rectified_flow_celeba_hq.pth").write_bytes(CONTENT)
    assert resolve("celeba_hq").read_bytes() == CONTENT


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "my.pt").write_bytes(CONTENT)
    assert resolve(str(tmp_path / "my.pt")) == tmp_path / "my.pt"


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(CheckpointError, match=r"No checkpoint 'imagnet256', .*did you mean imagenet256\?"):
        resolve("imagnet256")
    with pytest.raises(CheckpointError, match=r"give a path, hf://owner/repository/file, or one of imagenet256, ffhq256"):
        resolve("/nowhere/weights.pt")


@pytest.mark.parametrize("address", ["hf://owner", "hf://owner/repository", "hf://owner//file.pt"])
def test_a_hub_address_names_a_file(address):
    with pytest.raises(CheckpointError, match="names no file: write hf://owner/repository/file"):
        resolve(address)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as serves one file."""

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.serve(b"")

    def do_GET(self):
        self.serve(CONTENT)

    def serve(self, body):
        self.server.paths.append(self.path)
        if self.path != "/owner/repository/resolve/v1/folder/weights.pt":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)


def test_a_hub_address_is_fetched_from_the_hub(tmp_path):
    code = """
import sys
from cclight.priors.checkpoints import CheckpointError, resolve
print(resolve("hf://owner/repository@v1/folder/weights.pt"))
try:
    resolve("hf://owner/repository/absent.pt")
except CheckpointError as error:
    print(error)
"""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        hub.paths = []
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=500)
        hub.shutdown()
    assert run.returncode == 0, run.stderr
    path, *complaint = run.stdout.splitlines()
    assert Path(path).read_bytes() == CONTENT
    assert len(complaint) == 1
    assert complaint[0].startswith("hf://owner/repository/absent.pt cannot be fetched (")
    assert complaint[0].endswith("check the address and the network, or give the path of a local copy.")


def test_a_file_called_like_a_known_one_has_its_architecture():
    assert architecture_of("ffhq256", "ADM")["num_channels"] == 128
    assert architecture_of("some/where/diffusion_ffhq_10m.pt", "ADM")["num_channels"] == 128
    assert architecture_of("rectified_flow_lsun_church.pth", "RectifiedFlow") == {"centered": False}
    assert architecture_of("mine.pt", "ADM") == {}


# Reading


class Malice:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def damaged(kind, tmp_path):
    """A file of that kind, and a witness that exists once anything of it was executed."""
    file, witness = tmp_path / f"{kind}.pt", tmp_path / "executed"
    tensors = {"weight": torch.zeros(10_000)}
    if kind == "code":
        torch.save({**tensors, "extra": Malice(witness)}, file)
    elif kind == "legacy_code":
        torch.save({**tensors, "extra": Malice(witness)}, file, _use_new_zipfile_serialization=False)
    elif kind == "pickle":
        file.write_bytes(pickle.dumps(Malice(witness), protocol=2))
    elif kind == "module":
        torch.save(nn.Linear(2, 2), file)
    elif kind == "list":
        torch.save([torch.zeros(2)], file)
    elif kind == "bomb":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as part:
            for _ in range(64):
                part.write(bytes(1 << 20))
    elif kind == "compressed":
        torch.save(tensors, file)
        with zipfile.ZipFile(file) as stored:
            parts = {name: stored.read(name) for name in stored.namelist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    elif kind == "marked_page":
        file.write_bytes(b"\xef\xbb\xbf\n<html><body>Not found</body></html>")
    elif kind == "page":
        file.write_text("<!DOCTYPE html><html><body>Quota exceeded</body></html>")
    elif kind == "text":
        file.write_text("weights")
    elif kind == "empty":
        file.touch()
    elif kind == "truncated_safetensors":
        from safetensors.torch import save

        file = file.with_suffix(".safetensors")
        content = save(tensors)
        file.write_bytes(content[: len(content) // 2])
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "truncated")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    return file, witness


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("code", r"holds Python objects beside tensors and was refused, nothing of it executed: .*save its state_dict\(\)"),
        ("legacy_code", "holds Python objects"),
        ("pickle", "holds Python objects"),
        ("module", "holds Python objects"),
        ("list", r"holds a list, not a state_dict: save the model's state_dict\(\)"),
        ("bomb", r"is a zip file that unpacks to \d+ bytes, which no checkpoint does"),
        ("compressed", "is a zip file that unpacks to"),
        ("folder", "is a folder, not a checkpoint"),
        ("pipe", "is a pipe or a device, not a checkpoint"),
        ("pointer", "is a pointer to a checkpoint, not the checkpoint: fetch it with `git lfs pull`"),
        ("marked_page", "is a web page"),
        ("page", "is a web page, not a checkpoint: delete it and fetch the file that the page links to"),
        ("text", "is truncated or no checkpoint: delete it and fetch it again"),
        ("empty", r"\(0 bytes\) is truncated"),
        ("truncated", "is truncated"),
        ("truncated_legacy", "is truncated"),
        ("truncated_safetensors", "is truncated"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused_unexecuted(kind, complaint, tmp_path):
    file, witness = damaged(kind, tmp_path)
    with pytest.raises(CheckpointError, match=complaint) as error:
        load_state(file)
    assert "\n" not in str(error.value)
    assert not witness.exists()


@pytest.mark.parametrize("prior", [ADM, RectifiedFlow, SmallPrior])
@pytest.mark.parametrize("kind", ["code", "legacy_code", "pickle"])
def test_no_prior_runs_what_its_file_holds(prior, kind, tmp_path):
    file, witness = damaged(kind, tmp_path)
    with pytest.raises(ValueError, match=r"nothing of it executed|no readable safetensors file"):
        prior(str(file))
    assert not witness.exists()


@pytest.mark.parametrize("suffix", [".pt", ".legacy.pt", ".safetensors"])
def test_every_format_is_read(suffix, tmp_path):
    from safetensors.torch import save_file

    file, state = tmp_path / f"weights{suffix}", {"weight": torch.arange(6.0).view(2, 3)}
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=suffix == ".pt")
    assert torch.equal(load_state(file)["weight"], state["weight"])


# Filling


def test_a_network_takes_the_weights_in_float32_and_is_frozen():
    with torch.device("meta"):
        network = nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3).half(), "bias": torch.zeros(2).double()}
    fill(network, state, "here")
    assert torch.equal(network(torch.ones(1, 3)), torch.full((1, 2), 3.0))
    assert not network.weight.requires_grad
    assert not network.training


def test_keys_that_do_not_fit_are_refused_with_the_first_few():
    network = nn.Sequential(*(nn.Linear(3, 2) for _ in range(4)))
    state = {"0.weight": torch.zeros(2, 4), "0.bias": torch.zeros(2), "head": torch.zeros(1), "step": 7}
    with pytest.raises(CheckpointError) as error:
        fill(network, state, "here.pt")
    message = str(error.value)
    assert message.startswith("here.pt does not fit Sequential: 6 keys missing (1.weight, 1.bias, 2.weight, ...); ")
    assert "2 keys unexpected (head, step); 1 keys of another shape (0.weight: (2, 4) for (2, 3)). " in message
    assert message.endswith("or take the checkpoint that belongs here.")


def test_weights_that_are_not_finite_are_refused():
    network = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=r"here\.pt holds values that are not finite in 1 of 2 weights \(bias\)"):
        fill(network, {"weight": torch.ones(2, 3), "bias": torch.tensor([1.0, torch.inf])}, "here.pt")


STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
OTHER = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}


def under(prefix, state=STATE):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        (under("module."), "the prefix module. were"),
        ({"state_dict": STATE, "epoch": 3}, "its entry state_dict were"),
        ({"model": under("module."), "optimizer": {"state": {}}}, "its entry model and the prefix module. were"),
        ({"model": OTHER, "ema": STATE, "step": 1}, "its entry ema were taken, one of 2 sets"),
        ({"state_dict": {**under("model.", OTHER), **under("model_ema."), "loss.weight": torch.ones(1)}}, "one of 2 sets"),
        (under("_orig_mod."), "the prefix _orig_mod. were"),
        ({"state": {"net": {"params": STATE}}}, "its entry state.net.params were"),
    ],
)
def test_the_usual_wrappings_are_taken_off_and_it_is_said(wrapped, said):
    with torch.device("meta"):
        network = nn.Linear(3, 2)
    with pytest.warns(UserWarning, match=said):
        fill(network, wrapped, "here.pt")
    assert network.weight.sum() == 6


def test_wrapped_weights_of_another_network_get_the_remedy():
    with pytest.raises(CheckpointError, match=r"does not fit Linear: 2 keys missing .* 2 keys unexpected \(model, step\)"):
        fill(nn.Linear(3, 2), {"model": {"conv.weight": torch.zeros(1)}, "step": 2}, "here.pt")


# What is known


def test_the_cards_are_complete_and_their_files_distinct():
    assert len({card.file for card in CARDS.values()}) == len(CARDS)
    for name, card in CARDS.items():
        assert card.name == name
        assert card.prior in ("ADM", "RectifiedFlow", "EDM", "PnPFlowUNet", "AzulaPrior", "DeepinvPrior")
        assert card.licence
        assert card.source.startswith(("https://", "hf://"))
        assert card.sha256 is None or len(bytes.fromhex(card.sha256)) == 32
    assert {card.paper for card in CARDS.values()} - {""} == {"ImageNet", "FFHQ", "CelebA-HQ", "AFHQ-cat", "LSUN bedroom"}


def test_the_table_lists_every_card_and_what_is_cached(cache):
    cache.mkdir(parents=True)
    (cache / CARDS["imagenet256"].file).touch()
    table = models_table()
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["name"] == list(CARDS)
    cached = dict(zip(columns["name"], columns["cached"], strict=True))
    assert (cached["imagenet256"], cached["ffhq256"], cached["celeba_hq"]) == ("yes", "no", "by hand")


def test_the_table_cuts_nothing_on_a_narrow_terminal():
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(models_table())
    text = console.export_text()
    assert "…" not in text
    assert all(re.search(rf"^{name} ", text, re.MULTILINE) for name in CARDS)


def test_a_program_that_reads_along_gets_each_card_in_a_line_of_its_own(capsys):
    from cclight.cli import main

    main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CARDS)
    assert all(card.source in line for card, line in zip(CARDS.values(), lines[1:], strict=True))


def test_sizes_are_those_of_the_parameters(networks):
    for name, keys in {"imagenet256": "adm_imagenet256_uncond", "ffhq256": "adm_ffhq256"}.items():
        parameters = json.loads((networks / f"{keys}.keys.json").read_text())["n_params"]
        assert CARDS[name].gigabytes == pytest.approx(4e-9 * parameters, abs=0.05)
    # A flow's container holds the weights, their average and Adam's two moments.
    parameters = json.loads((networks / "ncsnpp_rf256_celeba.keys.json").read_text())["n_params"]
    assert CARDS["celeba_hq"].gigabytes == pytest.approx(4 * 4e-9 * parameters, abs=0.05)
