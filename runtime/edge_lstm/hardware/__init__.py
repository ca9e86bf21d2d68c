"""Facts about hardware: supported boards, this machine's processor and memory, its power sensors."""
