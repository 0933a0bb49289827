"""The offline stand-in of the ststm32 platform: programs come from PATH, never from the registry."""

from platformio.public import PlatformBase


class Ststm32Platform(PlatformBase):
    """Keeps every package optional, because asking the registry offline would hang for a minute."""

    @property
    def packages(self):
        """The packages, none required (platform_packages in platformio.ini makes the compiler so)."""
        found = super().packages
        for package in found.values():
            package["optional"] = True
        return found
