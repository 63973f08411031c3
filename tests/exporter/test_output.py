"""The output folder is complete or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from modelexport.contract.errors import OutputExistsError, OutputUnwritableError
from modelexport.output import staged


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    with staged(tmp_path / "a" / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "out").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert (tmp_path / "a" / "out" / "file").read_text() == "x"


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "out" / "file").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_way_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExistsError), staged(tmp_path / "out", overwrite=overwrite):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_a_link_to_an_empty_folder_is_filled_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with staged(tmp_path / "link") as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_text() == "x"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritableError, match="cannot be written"), staged(tmp_path / "file" / "out"):
        pass


def test_a_folder_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError), staged(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "theirs").exists()


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib, sys\n"
        "from modelexport.output import staged\n"
        "with staged(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")], check=False)
    assert len(list(tmp_path.glob(".out.*.partial"))) == 1
    with staged(tmp_path / "out") as running, staged(tmp_path / "out2"):
        assert [path.name for path in tmp_path.glob(".out.*.partial")] == [running.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out2"]
