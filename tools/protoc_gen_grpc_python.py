"""A protoc plugin that lends grpcio-tools' gRPC Python generator to buf, which cannot call it by itself."""

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def main() -> None:
    """Read a CodeGeneratorRequest from standard input and answer it on standard output."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        image, out = Path(folder, "image.binpb"), Path(folder, "out")
        image.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        out.mkdir()
        status = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={image}",
                f"--grpc_python_out={out}",
                *request.file_to_generate,
            ]
        )
        if status:
            response.error = f"grpc_tools.protoc exited with status {status}"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    # A type checker reads the stubs of a package only where it is marked.
    for package in sorted({name.split("/")[0] for name in request.file_to_generate}):
        response.file.add(name=f"{package}/py.typed")
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
