"""The journal keeps whole lines, wherever a kill tore it, and goes on after them."""

from __future__ import annotations

import pytest

from edgemoe.store.journal import Journal

ENTRIES = {"norm.weight": "0123456789abcdef", "layers.0.experts.1": "fedcba9876543210"}


@pytest.fixture
def text(tmp_path):
    journal = Journal(tmp_path / "whole", "this")
    journal.append(ENTRIES)
    journal.close()
    return (tmp_path / "whole").read_bytes()


def entries(path, identity="this"):
    journal = Journal(path, identity)
    journal.close()
    return journal.checksums, journal.is_other


def test_entries_come_back(tmp_path, text):
    assert entries(tmp_path / "whole") == (ENTRIES, False)
    assert entries(tmp_path / "new") == ({}, False)


def test_the_journal_of_something_else_is_emptied(tmp_path, text):
    assert entries(tmp_path / "whole", "that") == ({}, True)
    assert entries(tmp_path / "whole", "that") == ({}, False)


def test_torn_at_any_byte_it_keeps_the_whole_lines_and_takes_more(tmp_path, text):
    path = tmp_path / "torn"
    ends = [i + 1 for i, byte in enumerate(text) if byte == ord("\n")]
    for cut in range(len(text) + 1):
        for garbage in (b"", b"\0\0", b"\xff\n", b'{"name": 1}\n'):
            path.write_bytes(text[:cut] + garbage)
            journal = Journal(path, "this")
            num_whole = max(0, sum(end <= cut for end in ends) - 1)
            assert journal.checksums == dict(list(ENTRIES.items())[:num_whole])
            journal.append({"more": "aa"})
            journal.close()
            assert entries(path) == ({**journal.checksums, "more": "aa"}, False)


def test_restart_forgets(tmp_path, text):
    journal = Journal(tmp_path / "whole", "this")
    journal.restart()
    journal.close()
    assert entries(tmp_path / "whole") == ({}, False)
