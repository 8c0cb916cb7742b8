"""Puts libsparkle.so into the wheel, and gives the wheel the name of this platform.

WHEEL_LIBRARY names the library; the default is the release build of this repository. WHEEL_PLATFORM names
the platform, for instance manylinux_2_28_x86_64 where the library was built on a system that old.
"""

import os
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Library(BuildHookInterface):
    def initialize(self, version, build_data):
        default = os.path.join(self.root, "..", "target", "release", "libsparkle.so")
        library = os.environ.get("WHEEL_LIBRARY", default)
        if not os.path.exists(library):
            raise FileNotFoundError(f"{library} does not exist: run `make` first, or set WHEEL_LIBRARY")
        here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        platform = os.environ.get("WHEEL_PLATFORM", here)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"][os.path.realpath(library)] = "sparkle/libsparkle.so"
