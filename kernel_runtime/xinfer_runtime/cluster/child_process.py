"""How our own child processes are started: which Python, which environment, and how they end with their parent.

The environment is an allow-list. What a Jupyter server has in its environment (hub tokens, cloud keys, proxies with
passwords) is nobody's business below it, and a Dask nanny sets thread limits there that would make a CPU engine crawl.
"""

import ctypes
import os
import signal
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import xinfer_runtime

# fmt: off
_ALLOWED = frozenset(
    [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE", "SSL_CERT_FILE", "SSL_CERT_DIR", "XINFER_HOME",
        "XINFER_DEVICE", "XINFER_MODEL_SRC", "XINFER_LOG_FORMAT", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
        "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "MODELSCOPE_DOMAIN",
        "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SYSTEMROOT",
    ]
)
# fmt: on
_ALLOWED_PREFIXES = ("LC_", "GGML_", "LLAMA_", "VLLM_")
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY")
_PR_SET_PDEATHSIG = 1


def child_environment(environ: Mapping[str, str], **extra: str) -> dict[str, str]:
    """What of `environ` a child may see, and `extra`. A package that is not installed is made importable."""
    allowed = {
        name: value
        for name, value in environ.items()
        if (name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)) and not any(word in name for word in _SECRET_WORDS)
    }
    root = str(Path(xinfer_runtime.__file__).parents[1])
    if root not in site.getsitepackages() and root != site.getusersitepackages():
        before = allowed.get("PYTHONPATH", "")
        if root not in before.split(os.pathsep):
            allowed["PYTHONPATH"] = os.pathsep.join(filter(None, (root, before)))
    return allowed | extra


def child_command(module: str) -> tuple[str, ...]:
    """Runs `module` with this Python. `-P` keeps files of the current folder from posing as modules."""
    return (sys.executable, "-P", "-m", module)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, process `parent`, dies; for where end-of-file comes too late.

    Linux only; elsewhere the end of stdin alone tells. The child calls it, not the parent between fork and exec: such a
    hook would make Python copy the whole of a big threaded parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def take_standard_streams() -> tuple[int, int]:
    """Keep stdin and stdout for the parent's protocol alone: returns their duplicates.

    Afterwards stdin is empty and what anything prints, C libraries included, goes to stderr.
    """
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers
