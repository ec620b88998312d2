"""What a measured process is given, and takes."""

import os
import pathlib
import re


def environment(**more: str) -> dict[str, str]:
  """This process's, but for a folder of compiled programs that it names."""
  own = {**os.environ, **more}
  own.pop('JAX_COMPILATION_CACHE_DIR', None)
  return own


def resident_bytes(process: int) -> int:
  """Resident memory of a process by its number (Linux); 0 as it ends."""
  status = pathlib.Path(f'/proc/{process}/status').read_text()
  match = re.search(r'VmRSS:\s+(\d+) kB', status)
  return int(match[1]) * 1024 if match else 0
