"""The one path normaliser, the one glob matcher, the one name canonicaliser, the one sanitizer."""
