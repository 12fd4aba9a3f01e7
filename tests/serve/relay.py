"""Standard input and output as a TCP connection: what SSH takes as a proxy command. `relay.py PORT`."""

from __future__ import annotations

import os
import socket
import sys
import threading


def main(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def inwards() -> None:
            while data := connection.recv(65536):
                os.write(1, data)
            os._exit(0)

        threading.Thread(target=inwards, daemon=True).start()
        while data := os.read(0, 65536):
            connection.sendall(data)


if __name__ == "__main__":
    main(int(sys.argv[1]))
