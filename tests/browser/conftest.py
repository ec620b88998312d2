"""A browser, and images to give to pages."""

import chromium
import jax
import pytest
from PIL import Image

from leukemia_jax.data import synthetic, synthetic_cells


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  """Chromium; its downloads lie in `downloads`."""
  yield from chromium.start(tmp_path_factory.mktemp('browser'))


@pytest.fixture(scope='session')
def smear_files(once):
  """A folder of synthetic smears, in several formats."""

  def draw(folder):
    folder.mkdir()
    for i, name in enumerate(('a.png', 'b.jpg', 'c.tif', '"d", <i>.bmp')):
      image, _ = synthetic.render_image(
        jax.random.key(5), i, i, i, spec=synthetic_cells.SmearSpec()
      )
      Image.fromarray(image).save(folder / name)

  return once('smears', draw)
