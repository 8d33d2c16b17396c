"""A manifest round-trips; anything else is a StoreError, whatever the damage."""

from __future__ import annotations

import json
import shutil

import pytest
from golden.make_store import FOLDER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemoe.errors import CorruptStoreError, StoreError
from edgemoe.store import open_store
from edgemoe.store.manifest import read_manifest

TEXT = (FOLDER / "edgemoe.json").read_text()


@pytest.fixture
def store(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "store")


def paths(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths(part, (*path, key))


def read_or_refuse(folder):
    """The manifest, or None if it was refused in one line that names the folder."""
    try:
        return read_manifest(folder)
    except StoreError as error:
        message = str(error)
    assert str(folder) in message
    assert "\n" not in message
    return None


def assert_within_files(manifest):
    for entry in (*manifest.dense.values(), *manifest.experts.values()) if manifest else ():
        assert 0 <= entry.offset < entry.offset + entry.num_bytes <= manifest.files[entry.file]


PATHS = [path for path in paths(json.loads(TEXT)) if path]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def test_what_is_written_reads_back(tmp_path):
    manifest = read_manifest(FOLDER)
    (tmp_path / "edgemoe.json").write_text(manifest.to_json())
    assert read_manifest(tmp_path) == manifest
    fields = json.loads(manifest.to_json())
    del fields["checksum"]
    assert fields == json.loads(TEXT)


def test_what_changed_since_it_was_written_is_refused(tmp_path):
    """Also where it agrees with itself: two experts that changed places, a format of the same size."""
    written = json.loads(read_manifest(FOLDER).to_json())
    swapped = dict(zip(written["experts"], reversed(written["experts"].values()), strict=True))
    changes = {"experts": swapped, "checksums": {}, "checksum": "0" * 16, "generator": ""}
    for name, value in changes.items():
        (tmp_path / "edgemoe.json").write_text(json.dumps({**written, name: value}))
        with pytest.raises(StoreError, match="changed since it was written"):
            read_manifest(tmp_path)
    (tmp_path / "edgemoe.json").write_text(json.dumps(written, indent=4, sort_keys=True))
    assert read_manifest(tmp_path) == read_manifest(FOLDER)


@pytest.mark.parametrize("name", ["00.0", " 0.0", "+0.0", "0.0_0", "-0.0", "٠.0", "0.0.0", "0"])
def test_an_expert_has_one_name(tmp_path, name):
    fields = json.loads(TEXT)
    fields["experts"] = {name: fields["experts"]["0.1"], **fields["experts"]}
    (tmp_path / "edgemoe.json").write_text(json.dumps(fields))
    with pytest.raises(StoreError, match="names no expert"):
        read_manifest(tmp_path)


def test_a_name_stands_once(tmp_path):
    (tmp_path / "edgemoe.json").write_text('{"version": 1, ' + TEXT.strip()[1:])
    with pytest.raises(StoreError, match="'version' stands twice"):
        read_manifest(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), value=JSON)
def test_a_changed_value_is_refused_or_harmless(tmp_path, path, value):
    fields = json.loads(TEXT)
    parent = fields
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    (tmp_path / "edgemoe.json").write_text(json.dumps(fields))
    assert_within_files(read_or_refuse(tmp_path))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=64), at=st.integers(0, len(TEXT)))
def test_garbage_inside_is_refused_or_harmless(tmp_path, garbage, at):
    data = TEXT.encode()
    (tmp_path / "edgemoe.json").write_bytes(data[:at] + garbage + data[at + len(garbage) :])
    assert_within_files(read_or_refuse(tmp_path))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"version": 1e999}', '{"version": Infinity}', "null", "3", '"x"', ""]
)
def test_garbage_is_refused(tmp_path, text):
    (tmp_path / "edgemoe.json").write_text(text)
    with pytest.raises(StoreError, match="damaged manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../config.json", "a/b", "..", "", "a\0b"])
def test_files_outside_the_folder_are_refused(store, name):
    fields = json.loads(TEXT)
    fields["files"][name] = 1
    (store / "edgemoe.json").write_text(json.dumps(fields))
    with pytest.raises(StoreError, match="not the name of a file in the store"):
        open_store(store)


def test_huge_counts_are_refused(store):
    fields = json.loads(TEXT)
    fields["dense"]["embed.weight"]["shape"] = [(1 << 50) - 1, 64]
    (store / "edgemoe.json").write_text(json.dumps(fields))
    with pytest.raises(StoreError, match="damaged manifest"):
        open_store(store)


@pytest.mark.parametrize("key", ["offset", "num_bytes"])
@pytest.mark.parametrize("value", [-4096, True, 4096.0, "4096", None, 1 << 50])
def test_numbers_that_cannot_be_are_refused(store, key, value):
    fields = json.loads(TEXT)
    fields["experts"]["0.0"][key] = value
    (store / "edgemoe.json").write_text(json.dumps(fields))
    with pytest.raises(StoreError, match="is not a number that can be"):
        open_store(store)


def test_a_changed_digit_of_the_configuration_is_found(store):
    text = (store / "config.json").read_text()
    assert '"rope_theta": 10000.0' in text
    (store / "config.json").write_text(text.replace("10000.0", "20000.0"))
    with pytest.raises(CorruptStoreError, match=r"config\.json: differs from what was written"):
        open_store(store)


def test_a_damaged_header_is_found_by_verify(store):
    path = store / "experts-00000.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"layers.0.experts.2", b"layers.0.experts.9"))
    assert len(lines := list(open_store(store).verify())) == 1
    assert lines[0].endswith("differ about layers.0.experts.2")
