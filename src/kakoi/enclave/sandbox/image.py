"""What an engine can see: an interpreter, its standard library, a declared set of packages, our engine code, and the shared
libraries they need. Nothing else: no shell, no tools, no /etc, no /dev, no /proc, no /sys, no other package of the machine.
"""

from __future__ import annotations

import re
import struct
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import kakoi
from kakoi.core.errors import Unavailable

PACKAGES: Final = ("duckdb", "lifelines", "numpy", "pandas", "pyarrow", "scikit-learn", "statsmodels")
"""The declared set; what these require comes with them."""
OURS: Final = (
    "__init__.py",
    "core",
    "dataset/__init__.py",
    "dataset/opt_out.py",
    "enclave/__init__.py",
    "enclave/decimals.py",
    "enclave/engines",
    "enclave/exact.py",
    "enclave/failures.py",
    "enclave/job.py",
    "enclave/sandbox/__init__.py",
    "enclave/sandbox/landlock.py",
    "enclave/sandbox/seccomp.py",
    "enclave/sandbox/syscalls.py",
)
"""Our files that the engine's process loads, below the package."""
LIBRARIES: Final = (
    "libc.so.6",
    "libm.so.6",
    "libmvec.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libz.so.1",
    "libbz2.so.1.0",
    "liblzma.so.5",
    "libexpat.so.1",
    "libssl.so.3",  # pyarrow imports ssl to ask for its certificate paths
    "libcrypto.so.3",
    "libssl.so.1.1",
    "libcrypto.so.1.1",
    "libffi.so.8",
    "libffi.so.7",
    "libcrypt.so.1",
    "libuuid.so.1",
)
_FOREIGN: Final = ("site-packages", "dist-packages")
"""Packages of the machine that lie inside its standard library."""
PYTHON: Final = "/kakoi/python"
APP: Final = "/kakoi/app"
SITE: Final = "/kakoi/site"
LIB: Final = "/kakoi/lib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Read-only binds (from, to), and how to start the interpreter inside and, where there is no mount namespace, outside."""

    binds: tuple[tuple[str, str], ...]
    interpreter: str
    library_path: str
    app: str
    site: str
    masks: tuple[str, ...]
    """Directories inside the binds that are replaced by empty ones."""
    readable: tuple[str, ...]
    """What Landlock leaves readable."""


@lru_cache(maxsize=1)
def mapped() -> Image:
    """The image at its own paths, for a sandbox with a mount namespace. Raises Unavailable if a package is missing."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    executable = Path(sys.executable).resolve()
    binds = [
        (str(executable), f"{PYTHON}/bin/{version}"),
        (sysconfig.get_path("stdlib"), f"{PYTHON}/lib/{version}"),
        *((str(path), f"{PYTHON}/lib/{path.name}") for path in _python_library()),
        *((str(path), f"{SITE}/{path.name}") for path in packages()),
        *((str(_package() / name), f"{APP}/kakoi/{name}") for name in OURS),
        *_system_libraries(executable),
    ]
    return Image(
        binds=tuple(binds),
        interpreter=f"{PYTHON}/bin/{version}",
        library_path=f"{PYTHON}/lib:{LIB}",
        app=APP,
        site=SITE,
        masks=tuple(f"{PYTHON}/lib/{version}/{n}" for n in _FOREIGN if Path(sysconfig.get_path("stdlib"), n).is_dir()),
        readable=("/kakoi", *dict.fromkeys(f"/{to.split('/')[1]}" for _, to in binds if not to.startswith("/kakoi"))),
    )


def unmapped(staged: Callable[[str], str]) -> Image:
    """The same things where they lie on this machine, for a sandbox without a mount namespace (an accepted weakness).

    ``staged`` gives the name under which a launcher that gives up root reaches a path.
    """
    libraries = [str(path) for path in _library_directories()]
    library = [staged(str(path)) for path in _python_library()]
    interpreter, app = str(Path(sys.executable).resolve()), str(_package().parent)
    site, standard = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")
    return Image(
        binds=(),
        interpreter=staged(interpreter),
        library_path=":".join(str(Path(path).parent) for path in library),
        app=staged(app),
        site=staged(site),
        masks=(),
        readable=(*map(staged, (interpreter, standard, site, app)), *library, *libraries, "/etc/ld.so.cache"),
    )


def unmapped_roots() -> tuple[str, ...]:
    """Interpreter, packages and our code: directories."""
    return (sys.base_prefix, sysconfig.get_path("purelib"), str(_package().parent))


def _package() -> Path:
    return Path(kakoi.__file__).parent


@lru_cache(maxsize=1)
def packages(site: Path | None = None) -> tuple[Path, ...]:
    """Top-level entries in site-packages of the declared packages and of all they require. Raises Unavailable.

    Read from the installed metadata (PEP 376, PEP 566) by hand: the standard library's reader of it imports a mail parser and an
    archive library into the keeper.
    """
    site = site or Path(sysconfig.get_path("purelib"))
    installed = {_normal(path.name.split("-")[0]): path for path in site.glob("*.dist-info")}
    wanted, seen, found = [_normal(name) for name in PACKAGES], set[str](), set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in installed:
            if name in map(_normal, PACKAGES):
                raise Unavailable(
                    "sandbox.package", f"expected the package {name}, found none", hint="pip install 'kakoi[enclave]'"
                )
            continue  # required on other systems or Python versions only
        found |= _top_level(installed[name])
        wanted += _required(installed[name])
    return tuple(site / name for name in sorted(found) if (site / name).exists())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(information: Path) -> list[str]:
    """Names after Requires-Dist, extras left out."""
    header = (information / "METADATA").read_text("utf-8").split("\n\n", 1)[0]
    lines = [
        line.removeprefix("Requires-Dist:").strip() for line in header.splitlines() if line.startswith("Requires-Dist:")
    ]
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines if "extra ==" not in line]
    return [_normal(match.group()) for match in names if match]


def _top_level(information: Path) -> set[str]:
    """First components of the files that RECORD lists, those outside site-packages left out."""
    first = {
        line.strip('"').split("/")[0].split(",")[0] for line in (information / "RECORD").read_text("utf-8").splitlines()
    }
    return first - {"..", "__pycache__", ""}


def _python_library() -> list[Path]:
    directory = Path(str(sysconfig.get_config_var("LIBDIR") or ""))
    name = str(sysconfig.get_config_var("INSTSONAME") or "")
    path = directory / name
    return [path] if ".so" in name and path.is_file() else []


def _library_directories() -> list[Path]:
    triplet = str(sysconfig.get_config_var("MULTIARCH") or "")
    names = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    return [Path(name) for name in [*names, "/lib64", "/usr/lib64", "/lib", "/usr/lib"] if Path(name).is_dir()]


def _system_libraries(executable: Path) -> list[tuple[str, str]]:
    found = []
    for name in LIBRARIES:
        path = next((d / name for d in _library_directories() if (d / name).exists()), None)
        if path is not None:
            found.append((str(path.resolve()), f"{LIB}/{name}"))
    loader = _loader(executable)
    return [*found, (str(Path(loader).resolve()), loader)] if loader else found


def _loader(executable: Path) -> str:
    """The dynamic loader that an ELF file names (PT_INTERP; System V ABI, chapter 5). Empty for a static one."""
    with executable.open("rb") as file:
        header = file.read(64)
        offset, size, count = (*struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54))
        file.seek(offset)
        table = file.read(size * count)
        for i in range(count):
            kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", table, i * size)
            if kind == 3:
                file.seek(at)
                return file.read(length).rstrip(b"\0").decode("ascii")
    return ""


def roots(image: Image) -> tuple[str, ...]:
    """Directories that hold every bound path: what a launcher that gives up root must first make reachable."""
    parents = sorted({str(Path(source).parent) for source, _ in image.binds})
    return tuple(p for p in parents if not any(p != q and p.startswith(q + "/") for q in parents))
