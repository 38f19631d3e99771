"""Names that are not ASCII, and one that is no UTF-8, under a locale that knows nothing but ASCII."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl import config
from tests.bench_stage.bundles import colour_png, write_bundle

ROOT = Path(__file__).parents[2]
LABELS = ("é", "日本", "😀")
ASCII = {
    "LANG": "C",
    "LC_ALL": "POSIX",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TERM": "dumb",
    "NO_COLOR": "1",
}

# One process for all: starting each with torch near takes seconds.
WALK = """
import io, json, sys
from edgetl.cli import main

done = []
for words in json.loads(sys.argv[1]):
    words = [word.encode().decode("ascii", "surrogateescape") for word in words]  # as the system gives them
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict") for _ in range(2))
    sys.argv, sys.stdout, sys.stderr, code = ["edgetl", *words], out, err, 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code
    finally:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("ascii"))
    done.append([code, *texts])
from pathlib import Path
from edgetl import config
source = config.load(Path("rezept-\\u00e9.toml".encode().decode("ascii", "surrogateescape"))).data.source
print(sys.getfilesystemencoding(), Path(source).is_dir(), json.dumps(done))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ascii")
    write_bundle(folder / "modèle-日本.edgetl", labels=LABELS)
    for at, label in enumerate(LABELS):
        for split, count in (("train", 4), ("val", 2), ("test", 2)):
            there = folder / "bilder-é-😀" / split / label
            there.mkdir(parents=True)
            for number in range(count):
                (there / f"日{number}-é.png").write_bytes(colour_png(at, noise=9 * number + len(split)))
    listed = [f"bilder-é-😀/test/{label}/日0-é.png,{label},test" for label in LABELS]
    (folder / "liste-é.csv").write_text("\n".join(["path,label,split", *listed]), encoding="utf-8")
    odd = os.fsencode(folder / "bilder-é-😀" / "train" / LABELS[0]) + b"/caf\xe9.png"
    with open(odd, "wb") as file:  # noqa: PTH123 - a Path holds text
        file.write(colour_png(0, noise=77))
    return folder


def test_every_command_on_names_that_the_locale_cannot_say(place: Path) -> None:
    images, bundle = "bilder-é-😀", "modèle-日本.edgetl"
    walked = [
        (["init", images, "-o", "rezept-é.toml"], False),
        (["data", "check", images, "--json"], True),
        (["data", "check", images], False),
        (["predict", bundle, images, "--json-lines"], False),
        (["predict", bundle, images, "--json"], True),
        (["predict", bundle, images], False),
        (["verify", bundle, "--json"], True),
        (["info", bundle, "--json"], True),
        (["info", bundle], False),
        (["doctor", "--json"], True),
        (["doctor"], False),
        (["eval", bundle, f"{images}/train", "--json"], True),
        (["eval", bundle, images], False),
        (["eval", bundle, "liste-é.csv", "--json"], True),
        (["bench", bundle, "--runs", "10", "--warmup", "1", "--json"], True),
        (["gate", bundle, "--against", bundle, "--data", images, "--seconds", "1", "--json"], True),
    ]
    done = subprocess.run(
        [sys.executable, "-c", WALK, json.dumps([words for words, _ in walked])],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **ASCII},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    encoding, found, answers = done.stdout.split(" ", 2)
    assert (encoding, found) == ("ascii", "True")
    # The recipe says the same on a machine with another locale, where the classes have the same names.
    source = place / config.load(place / "rezept-é.toml").data.source
    assert source == place / images
    for (words, as_json), (code, out, err) in zip(walked, json.loads(answers), strict=True):
        assert "Traceback" not in err, (words, err)
        assert code in ((0, 1, 3) if words[0] == "gate" else (0,)), (words, err)
        if as_json:
            answer = json.loads(out)
        if words[:2] == ["data", "check"] and as_json:
            assert set(answer["counts"]["train"]) == set(LABELS)
