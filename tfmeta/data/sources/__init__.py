"""Sources of classes and tasks: one module for each source that `tfmeta.data.load` knows."""
