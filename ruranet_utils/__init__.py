"""RURANET++ reproduced: the thin package that the numbered notebooks call. Importing it changes nothing."""

__version__ = "0.1.0"
