"""EdgeSpec within an app on a phone: the Python side of a bridge to the app's own language."""
