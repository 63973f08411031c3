"""Pages that are functions of the code are up to date."""

import runpy
from pathlib import Path

import pytest

from modelexport.contract import ERRORS, ErrorCode

DOCS = Path(__file__).parents[2] / "docs"
PAGES = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: python docs/generate.py"


def test_every_code_has_one_class_one_status_and_an_explanation() -> None:
    assert set(ERRORS) == set(ErrorCode)
    statuses = [error.exit_status for error in ERRORS.values()]
    assert len(set(statuses)) == len(statuses)
    assert all(0 < status < 126 or status == 130 for status in statuses)
    assert all(error.__doc__ for error in ERRORS.values())
