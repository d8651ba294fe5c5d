"""Virtual environments with packages from PyPI, made once."""

import subprocess
import venv


def installed(folder, packages):
    """The programs' folder of an environment with these packages. It is made anew if it has others."""
    done, wanted = folder / "done", "\n".join(packages)
    if not done.is_file() or done.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *packages], check=True)
        done.write_text(wanted)
    return folder / "bin"
