"""What the exporter wants from a repo's model card: its pipeline tag."""

from pathlib import Path

import yaml


def pipeline_tag(folder: Path) -> str | None:
    """``pipeline_tag`` from the YAML header of README.md; None without one, or where the header is not valid YAML.

    The header is the block between two lines of three dashes at the top
    (https://huggingface.co/docs/hub/model-cards#model-card-metadata).
    """
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return None
    end = next(number for number, line in enumerate(lines[1:], start=1) if line.strip() == "---")
    try:
        header = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError:
        return None
    tag = header.get("pipeline_tag") if isinstance(header, dict) else None
    return tag if isinstance(tag, str) else None
