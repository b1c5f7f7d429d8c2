"""Input data: published data sets, image files, the field of view, synthetic eyes."""
