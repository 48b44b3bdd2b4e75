"""NVIDIA's compiler and disassembler as Python packages, pinned, in a folder of their own."""

import pathlib, shutil, subprocess, sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"


class Missing(Exception):
    pass


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Missing(f"{' '.join(command[:4])} …: {lines[-1] if lines else done.returncode}")


def _pip():
    """A command that installs; Debian leaves pip out of python3."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode == 0:
        return pip
    import os

    if shutil.which("apt-get") and os.geteuid() == 0:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "python3-pip")
        if subprocess.run([*pip, "--version"], capture_output=True).returncode == 0:
            return pip
    raise Missing("python3 has no pip; install it (Debian: apt-get install python3-pip)")


def fetch(folder, wanted=None):
    """The packages in `folder`, installed unless it has these very versions."""
    wanted = wanted or REQUIREMENTS.read_text()
    stamp = folder / "requirements.txt"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _run(*_pip(), "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
             "--target", str(folder), *wanted.split())
        stamp.write_text(wanted)
    return folder


def one(folder, pattern):
    """The first file of that name in a folder of packages."""
    found = sorted(folder.rglob(pattern))
    if not found:
        raise Missing(f"{pattern} was not found in {folder}")
    return found[0]


def locate(folder):
    """libnvrtc, nvdisasm and cuobjdump in a folder of packages."""
    return one(folder, "libnvrtc.so.1?"), one(folder, "nvdisasm"), one(folder, "cuobjdump")
