"""Checks that every dependency has wheels for other systems.

    python -m reproduce.check_platforms

asks uv (`pip install uv`) to resolve setup.cfg for Windows and for macOS on
arm64, on Python 3.11 and 3.13, without building anything but `promise`, which
TensorFlow Datasets needs and which is pure Python without a wheel.
"""

import configparser
import itertools
import subprocess
import sys

from reproduce.stored import ROOT

PLATFORMS = ('x86_64-pc-windows-msvc', 'aarch64-apple-darwin')
PYTHONS = ('3.11', '3.13')


def resolve(platform: str, python: str) -> subprocess.CompletedProcess[str]:
  """What uv says to one system and Python."""
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  return subprocess.run(
    [
      *('uv', 'pip', 'compile', '-', '--quiet'),
      *('--python-platform', platform, '--python-version', python),
      *('--only-binary', ':all:', '--no-binary', 'promise'),
    ],
    input=config['options']['install_requires'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def main() -> None:
  """Resolves for all of them; exits with 1 if one can't be."""
  failed = False
  for platform, python in itertools.product(PLATFORMS, PYTHONS):
    done = resolve(platform, python)
    count = sum('==' in line for line in done.stdout.splitlines())
    failed |= done.returncode != 0
    said = f'{count} packages' if done.returncode == 0 else done.stderr.strip()
    print(f'{platform}, Python {python}: {said}')
  sys.exit(failed)


if __name__ == '__main__':
  main()
