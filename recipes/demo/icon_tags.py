"""Keywords that some icon sets ship outside Iconify."""

import re

from common import Paths, read_json


def load_tags(paths: Paths) -> dict[str, dict[str, list[str]]]:
    """Icon set → icon → keywords, for the sets whose own npm package lists them."""
    lucide = read_json(paths.npm / "lucide-static/tags.json")
    tabler = read_json(paths.npm / "@tabler/icons/icons.json")
    mdi = read_json(paths.npm / "@mdi/svg/meta.json")
    awesome = {}
    families = read_json(paths.npm / "@fortawesome/fontawesome-free/metadata/icon-families.json")
    for name, entry in families.items():
        terms = [str(term) for term in entry.get("search", {}).get("terms", [])]
        awesome[name] = terms + ([entry["label"]] if entry.get("label") else [])
    return {
        "lucide": lucide,
        "vadivam": lucide,  # redraws Lucide's icons under the same names
        "tabler": {name: [str(tag) for tag in entry.get("tags", [])] for name, entry in tabler.items()},
        "mdi": {entry["name"]: [alias.replace("-", " ") for alias in entry.get("aliases", [])] for entry in mdi},
        "fa7-solid": awesome,
        "fa7-regular": awesome,
        "ph": _phosphor_tags((paths.npm / "@phosphor-icons/core/dist/index.mjs").read_text(encoding="utf-8")),
    }


def _phosphor_tags(source: str) -> dict[str, list[str]]:
    """Phosphor ships its tags in a JavaScript module only."""
    entries = re.findall(r'name:\s*"([a-z0-9-]+)".*?tags:\s*\[(.*?)\]', source, re.S)
    return {name: [tag for tag in re.findall(r'"([^"]+)"', tags) if tag != "*new*"] for name, tags in entries}
