"""cclight/priors/pickles.py: snapshots are read, and nothing that a pickle holds is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
from collections import OrderedDict

import pytest
import torch

from cclight import EDM
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.pickles import read_snapshot


@pytest.fixture
def snapshot(golden):
    return golden / "karras" / "edm" / "snapshot.pkl"


def test_the_state_dict_is_the_original_s(snapshot, golden):
    expected = json.loads((golden / "karras" / "edm" / "snapshot.json").read_text())["keys"]
    found = read_snapshot(snapshot)
    assert found.class_name == "EDMPrecond"
    assert [(key, list(value.shape)) for key, value in found.state.items()] == list(expected.items())


def test_the_network_of_a_snapshot_denoises_as_the_original(snapshot):
    numbers = torch.load(snapshot.with_name("snapshot.io.pt"), weights_only=True)
    estimate = EDM(str(snapshot)).estimate(numbers["x"], numbers["sigma"])
    assert float((estimate - numbers["D"]).abs().max() / numbers["D"].abs().max()) < 1e-5


class Planted:
    """An object whose unpickling calls a function of the attacker's choice."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def planted(tmp_path):
    mark = tmp_path / "executed"
    return mark, {
        "posix.mkdir": Planted(os.mkdir, str(mark)),
        "builtins.eval": Planted(eval, f"__import__('os').mkdir({str(mark)!r})"),
        "builtins.exec": Planted(exec, f"__import__('os').mkdir({str(mark)!r})"),
        "builtins.getattr": Planted(getattr, "text", "format"),
        "builtins.__import__": Planted(__import__, "os"),
        "torch.hub.load": Planted(torch.hub.load, "nobody/nothing", "x"),
        "torch.serialization.load": Planted(torch.load, str(mark)),
    }


def test_whatever_else_a_pickle_asks_for_is_refused_by_name(tmp_path):
    mark, attacks = planted(tmp_path)
    for name, attack in attacks.items():
        for content in (attack, {"ema": attack}, {"ema": OrderedDict(a=[attack])}):
            file = tmp_path / "evil.pkl"
            file.write_bytes(pickle.dumps(content, protocol=4))
            with pytest.raises(CheckpointError) as error:
                EDM(str(file))
            text = str(error.value)
            assert name in text or f"asks for {name.rsplit('.')[0]}" in text
            assert "nothing of it executed" in text
            assert "\n" not in text
            assert not mark.exists()


def test_the_allowed_names_lead_to_no_others(tmp_path):
    """Attributes of an allowed name, a dotted path through it, a state set on it, a nested torch file: none gets further."""
    mark = tmp_path / "executed"

    def program(module, name, rest=b""):
        return (
            b"\x80\x04" + b"\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93" + rest + b"."
        )

    inner = io.BytesIO()
    torch.save(Planted(os.mkdir, str(mark)), inner)
    nested = pickle.dumps(Planted(torch.storage._load_from_bytes, inner.getvalue()), protocol=4)
    text = str(mark).encode()
    setstate = program(b"torch._utils", b"_rebuild_tensor_v2", b"}\x8c\x08__code__\x8c" + bytes([len(text)]) + text + b"s\x86b")
    for content in (
        program(b"collections", b"OrderedDict.__init__.__globals__"),
        program(b"torch._utils", b"_rebuild_tensor_v2.__globals__"),
        program(b"torch.nn.modules.container", b"Sequential"),
        setstate,
        nested,
    ):
        (tmp_path / "evil.pkl").write_bytes(content)
        with pytest.raises(CheckpointError):
            read_snapshot(tmp_path / "evil.pkl")
        assert not mark.exists()
    assert torch._utils._rebuild_tensor_v2.__code__.co_name == "_rebuild_tensor_v2"


def test_damage_is_one_line(tmp_path, snapshot):
    whole = snapshot.read_bytes()
    loop = {}
    loop["ema"] = loop
    for content, word in (
        (b"", "truncated"),
        (whole[: len(whole) // 2], "truncated"),
        (b"<!doctype html>", "truncated"),
        (pickle.dumps({"ema": None}), "no network under the key ema"),
        (pickle.dumps([1, 2]), "no network under the key ema"),
        (pickle.dumps(loop), "no network under the key ema"),
    ):
        (tmp_path / "damaged.pkl").write_bytes(content)
        with pytest.raises(CheckpointError, match=word) as error:
            read_snapshot(tmp_path / "damaged.pkl")
        assert "\n" not in str(error.value)


def test_the_golden_snapshot_asks_for_what_the_reader_allows(snapshot):
    """The published structure needs the table's names: otherwise the refusals above would be of no use."""
    asked = {argument for opcode, argument, _ in pickletools.genops(snapshot.read_bytes()) if isinstance(argument, str)}
    assert {"torch_utils.persistence", "_reconstruct_persistent_obj", "_rebuild_tensor_v2", "module_src"} <= asked
