"""Both configurations: the repository's (`.vestibule/config.yaml`, from the base commit) and the operator's."""
