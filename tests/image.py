"""The image without Docker: the Dockerfile's own steps, carried out in a folder that stands for the file system.

``COPY`` takes what ``.dockerignore`` lets through, ``RUN`` runs what is written there; an absolute path of the image
means the same path under the folder. Instead of installing the packages, those of ``requirements-image.lock`` are
linked from this very environment, and no others, so that a package that the image lacks is missing here too.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OWN = ("/opt/", "/var/lib/backstop")
"""Absolute paths of the Dockerfile that are the image's own; all others are the machine's."""


def instructions(text: str) -> list[tuple[str, str]]:
    """The steps of a Dockerfile: comments left out, continued lines put together."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = (line.partition(" ") for line in joined.splitlines())
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def locked(file: Path) -> dict[str, str]:
    """Versions by name, of what the lock has for this Python."""
    environment = {key: str(value) for key, value in default_environment().items()}
    entries = re.split(r"\n(?=\S)", file.read_text("utf-8").replace("\\\n", " ").strip())
    needs = [Requirement(entry.split(" --hash")[0].strip()) for entry in entries]
    return {
        canonicalize_name(need.name): next(iter(need.specifier)).version
        for need in needs
        if need.marker is None or need.marker.evaluate(environment)
    }


def sent(folder: Path) -> list[Path]:
    """The files that `docker build` is given: .dockerignore's last fitting line decides, as Docker reads it."""
    rules = [line for line in (folder / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in {".git", ".venv", "__pycache__"}]
        found += [(Path(place) / name).relative_to(folder) for name in names]
    return sorted(path for path in found if not _ignored(path.as_posix(), rules))


def _ignored(name: str, rules: list[str]) -> bool:
    ignored = False
    parts = name.split("/")
    above = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    for rule in rules:
        pattern = rule.removeprefix("!")
        fits = any(
            fnmatch.fnmatchcase(one.rpartition("/")[2], pattern[3:])
            if pattern.startswith("**/")
            else _fits(one, pattern)
            for one in above
        )
        ignored = not rule.startswith("!") if fits else ignored
    return ignored


def _fits(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


@dataclass
class Image:
    """What a Dockerfile makes.

    Attributes:
        folder: Stands for the file system.
        environment: What ENV says of the last stage.
        copied: What COPY names of the context.
        user: Of the last stage.
        entrypoint: Of the last stage, as it would be called there.
        ran: The RUN steps.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    user: str = ""
    entrypoint: str = ""
    ran: list[str] = field(default_factory=list)
    _arguments: dict[str, str] = field(default_factory=dict)
    _place: str = "/"

    def at(self, path: str) -> Path:
        """Where a path of the image is here."""
        return self.folder / path.lstrip("/")

    def here(self, text: str) -> str:
        """A text in which the image's paths are those of the folder."""
        return re.sub("(?<![\\w./-])(" + "|".join(OWN) + ")", lambda found: f"{self.folder}{found[1]}", text)

    def build(self, context: Path, **arguments: str) -> Image:
        """Carry out every step.

        Raises:
            subprocess.CalledProcessError: When a RUN step fails.
            FileNotFoundError: When something that is copied is not there.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        files = sent(context)
        for name, rest in instructions((context / "Dockerfile").read_text("utf-8")):
            if name == "ARG":
                key, _, default = rest.partition("=")
                self._arguments[key] = arguments.get(key, default.strip('"'))
            elif name == "FROM":
                self.environment, self.user, self.entrypoint = {}, "", ""
            elif name == "WORKDIR":
                self._place = rest
                self.at(rest).mkdir(parents=True, exist_ok=True)
            elif name == "COPY" and not rest.startswith("--from="):
                self._copy(rest.split(), context, files)
            elif name == "RUN":
                self._run(rest)
            elif name == "ENV":
                self._set(rest)
            elif name == "USER":
                self.user = rest
            elif name == "ENTRYPOINT":
                self.entrypoint = self.here(rest.strip('[]"'))
        return self

    def _copy(self, words: list[str], context: Path, files: list[Path]) -> None:
        *sources, target = words
        for source in sources:
            self.copied.append(source)
            chosen = [path for path in files if path == Path(source) or Path(source) in path.parents]
            if not chosen:
                raise FileNotFoundError(f"COPY {source}: nothing of that name is sent to the builder")
            base = Path(self._place) / target
            for path in chosen:
                inner = path.relative_to(source) if path != Path(source) else Path(path.name)
                place = self.at(str(base / inner))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(context / path, place)

    def _run(self, command: str) -> None:
        self.ran.append(command)
        if " pip " in command:
            self._link_packages()
            return
        changed = command if os.geteuid() == 0 else command.replace("chown", "true")
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        subprocess.run(["/bin/sh", "-ec", self.here(changed)], cwd=self.at(self._place), env=environment, check=True)

    def _set(self, rest: str) -> None:
        for word in shlex.split(rest):
            key, _, value = word.partition("=")
            filled = re.sub(r"\$\{(\w+)\}", lambda found: self._arguments[found[1]], value)
            self.environment[key] = self.here(filled).replace("=/opt", f"={self.folder}/opt")

    def _link_packages(self) -> None:
        """The packages of the image's lock, from this environment, and no other's."""
        site = next(self.at("/opt/venv").glob("lib/python*/site-packages"))
        for name in locked(ROOT / "requirements-image.lock"):
            distribution = importlib.metadata.distribution(name)
            for file in distribution.files or ():
                source = Path(str(distribution.locate_file(file)))
                if file.parts[0] == ".." or "__pycache__" in file.parts or not source.exists():
                    self._script(file.parts, source)
                    continue
                self._link(site, file.parts, source)

    def _script(self, parts: tuple[str, ...], source: Path) -> None:
        """A command beside the interpreter, with the image's own in its first line."""
        if parts[-2:-1] != ("bin",) or not source.is_file():
            return
        text = source.read_bytes()
        if text.startswith(b"#!") and b"python" in text.partition(b"\n")[0]:
            target = self.at("/opt/venv/bin") / parts[-1]
            target.write_bytes(b"#!" + os.fsencode(self.at("/opt/venv/bin/python")) + b"\n" + text.partition(b"\n")[2])
            target.chmod(0o755)

    def _link(self, site: Path, parts: tuple[str, ...], source: Path) -> None:
        """One link per top-level folder; folders that several distributions share are made, and their parts linked."""
        shared = {"google", "sphinxcontrib", "opentelemetry", "mypyc"}
        depth = 2 if parts[0] in shared and len(parts) > 2 else 1
        target = site.joinpath(*parts[:depth])
        if not target.exists() and not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.parents[len(parts) - depth - 1] if len(parts) > depth else source)

    def surroundings(self, **environment: str) -> dict[str, str]:
        """The environment of a container: ENV and what is given, nothing else."""
        kept = {name: value for name, value in self.environment.items() if name != "PATH"}
        path = f"{self.at('/opt/venv/bin')}:/usr/bin:/bin"
        return {**kept, "PATH": path, "TMPDIR": str(self.folder / "tmp"), **environment}

    def call(self, *command: str, cwd: str = "/opt/backstop", **environment: str) -> subprocess.CompletedProcess[str]:
        """A command as the container would run it: through the entrypoint."""
        return subprocess.run(
            [self.entrypoint, *command],
            cwd=self.at(cwd),
            env=self.surroundings(**environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
