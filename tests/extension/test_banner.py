"""The lines a user pastes."""

from jupyter_xinfer.banner import banner


def test_the_python_line_compiles_and_names_server_key_and_model() -> None:
    text = banner("m", "http://127.0.0.1:8888/", "key")
    line = next(line.strip() for line in text.splitlines() if "import Client" in line)

    compile(line, "banner", "exec")
    assert "http://127.0.0.1:8888/" in line
    assert "'key'" in line.replace('"', "'")
