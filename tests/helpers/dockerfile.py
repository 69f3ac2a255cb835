"""Parser of docker/Dockerfile, for tests that check or execute its instructions."""

import json
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]

DOCKERFILE = ROOT / "docker/Dockerfile"


def instructions(path: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """Keyword and the rest of each instruction, without comments and flags."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word, re.sub(r"^(--\S+\s+)+", "", rest)) for word, rest in split]


def assigned(rest: str) -> dict[str, str]:
    """Names and values of an ARG or ENV instruction."""
    return dict(pair.split("=", 1) for pair in shlex.split(rest))


def listed(word: str) -> list[str]:
    """Words of an instruction in exec form, such as ENTRYPOINT."""
    (rest,) = (rest for found, rest in instructions() if found == word)
    words: list[str] = json.loads(rest[rest.index("[") :])
    return words


def copied() -> list[tuple[str, str]]:
    """Source, relative to the checkout, and destination of each COPY."""
    pairs = []
    for word, rest in instructions():
        if word == "COPY":
            *sources, destination = rest.split()
            pairs += [(source, destination) for source in sources]
    return pairs
