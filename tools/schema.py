"""Turn `spec/hubbub.proto` into the schema that the codec Protobuf loads, so that nobody needs a compiler to run it.

python tools/schema.py            write the generated file
python tools/schema.py --check    write nothing; exit with 1 where it is not fresh
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "spec" / "hubbub.proto"
TARGET = ROOT / "src" / "hubbub" / "protocol" / "schema.py"

TEXT = '''\
"""The schema of the codec Protobuf, compiled: a `FileDescriptorProto`.

Generated from spec/hubbub.proto by tools/schema.py. Do not edit: change that file and run the tool.
"""

from __future__ import annotations

import base64
from typing import Final

__all__ = ["SCHEMA"]

SCHEMA: Final = base64.b64decode(
    """
{}
    """
)
"""What a descriptor pool takes."""
'''


def main(arguments: list[str] | None = None) -> int:
    """Write the file where it is not fresh, or with `--check` only say so; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compile spec/hubbub.proto for the codec Protobuf.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is not fresh")
    check = parser.parse_args(arguments).check
    text = generated()
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print("src/hubbub/protocol/schema.py is not what spec/hubbub.proto says: run python tools/schema.py")
        return 1
    TARGET.write_text(text, encoding="utf-8")
    print("wrote src/hubbub/protocol/schema.py")
    return 0


def generated() -> str:
    """What belongs in the file."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "schema"
        command = ["-m", "grpc_tools.protoc", f"--proto_path={SOURCE.parent}", f"--descriptor_set_out={compiled}"]
        subprocess.run([sys.executable, *command, SOURCE.name], check=True)
        (file,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    # Without the names that other languages would want in JSON: each compiler makes up its own.
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
        for nested in message.nested_type:
            for field in nested.field:
                field.ClearField("json_name")
    encoded = base64.b64encode(file.SerializeToString(deterministic=True)).decode()
    return TEXT.format(textwrap.indent(textwrap.fill(encoded, 112), "    "))


if __name__ == "__main__":
    sys.exit(main())
