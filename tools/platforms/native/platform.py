"""The offline stand-in of the native platform."""

from platformio.public import PlatformBase


class NativePlatform(PlatformBase):
    """Builds for this computer; nothing to upload to."""
