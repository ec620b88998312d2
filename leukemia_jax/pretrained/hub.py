"""Exported models on the Hugging Face hub, fetched once, by revision."""

import functools
import pathlib

from leukemia_jax.errors import InputError


@functools.cache
def fetch(
  repository: str, revision: str, names: tuple[str, ...], cache: pathlib.Path
) -> pathlib.Path:
  """Gives the folder of a model's files, downloaded if they are not there yet.

  Args:
    repository: 'OWNER/NAME'.
    revision: a commit, which stays what it is, or a tag or branch.
    names: of the files that are wanted; no others are fetched.
    cache: where they are stored, in the hub's own layout.

  Returns:
    The folder that holds them.

  Raises:
    InputError: huggingface_hub is not installed, there is no network, or no
      such model.
  """
  try:
    import huggingface_hub
  except ImportError:
    raise InputError(
      "config.model.weights=hf:... needs: pip install 'leukemia_jax[hub]'"
    ) from None
  try:
    commit = revision
    for name in names:
      path = huggingface_hub.hf_hub_download(
        repository, name, revision=commit, cache_dir=cache
      )
      # What a branch is may change before the next.
      commit = pathlib.Path(path).parent.name
  # Its errors are of many kinds: of HTTP, of names, of what isn't stored.
  except Exception as error:
    reason = str(error).strip().partition('\n')[0]
    raise InputError(
      f'hf:{repository}@{revision} could not be fetched '
      f'({type(error).__name__}: {reason}). With a copy of its files, '
      'give config.model.weights=FOLDER'
    ) from error
  return pathlib.Path(path).parent
