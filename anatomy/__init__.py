"""Where the eye's landmarks lie in a photograph: optic disc and fovea."""
