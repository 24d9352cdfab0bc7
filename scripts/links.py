"""TCP links to the three servers that can be cut and slowed down, for scripts/e2e.

    links.py --port-base P     takes the servers' addresses from SHAKEDOWN_KAFKA, SHAKEDOWN_RABBIT and
                               SHAKEDOWN_POSTGRES, and prints a line NAME=ADDRESS for each: the way through here

Commands come on stdin, one a line; SERVER is kafka, rabbit or postgres. Each ends by itself:

    break SERVER SECONDS                        connections are reset, and so are new ones
    hold SERVER requests|replies|both SECONDS   nothing passes; what was under way comes afterwards
    slow SERVER SECONDS                         every piece takes 50 ms, each way

A Kafka broker tells clients where it is; that is changed on its way, or they would go there and leave the link
out. So this is for plain text only. Ends with stdin, and says how many connections were made and cut.
"""

import argparse
import asyncio
import os
import socket
import struct
import sys
import urllib.parse

NAMES = {"kafka": "SHAKEDOWN_KAFKA", "rabbit": "SHAKEDOWN_RABBIT", "postgres": "SHAKEDOWN_POSTGRES"}
DEFAULT_PORTS = {"kafka": 9092, "rabbit": 5672, "postgres": 5432}
PIECE = 65536
SLOW_S = 0.05
# Larger than any answer of a broker here.
FRAME_MAX = 1 << 28


class Server:
    """The links to one server, which share a fate."""

    def __init__(self, name):
        self.name = name
        self.broken = False
        self.slow = False
        self.open = {"requests": asyncio.Event(), "replies": asyncio.Event()}
        for way in self.open.values():
            way.set()
        self.writers = set()
        self.connections = 0
        self.moved = []  # what brokers say, and what is said instead
        self.told = 0  # how often one was told to a client

    def reset(self):
        for writer in self.writers:
            # RST, not FIN: nobody says goodbye.
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def suffer(self, kind, way, seconds):
        if kind == "break":
            self.broken = True
            self.reset()
        elif kind == "slow":
            self.slow = True
        else:
            for one in [way] if way != "both" else ["requests", "replies"]:
                self.open[one].clear()
        await asyncio.sleep(seconds)
        self.broken = self.slow = False
        for one in self.open.values():
            one.set()

    def said(self, piece):
        for there, here in self.moved:
            self.told += piece.count(there)
            piece = piece.replace(there, here)
        return piece


async def piece_of(server, way, reader):
    """What comes next; of a broker a whole answer, so that no address is in two pieces."""
    if way == "requests" or not server.moved:
        return await reader.read(PIECE)
    try:
        head = await reader.readexactly(4)
        size = int.from_bytes(head, "big")
        if size > FRAME_MAX:
            sys.exit(f"an answer of {size} bytes: is this Kafka in plain text?")
        return head + server.said(await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        return b""


async def pump(server, way, reader, writer):
    try:
        while True:
            piece = await piece_of(server, way, reader)
            await server.open[way].wait()
            if server.slow:
                await asyncio.sleep(SLOW_S)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(server, port, there):
    async def connect(reader, writer):
        server.writers.add(writer)
        away = None
        try:
            if server.broken:
                server.reset()
                return
            server.connections += 1
            away = await asyncio.open_connection(*there)
            server.writers.add(away[1])
            await asyncio.gather(pump(server, "requests", reader, away[1]), pump(server, "replies", away[0], writer))
        except OSError:
            pass
        finally:
            server.writers.discard(writer)
            writer.close()
            if away:
                server.writers.discard(away[1])

    return await asyncio.start_server(connect, "127.0.0.1", port)


def addresses(name, url):
    """Hosts and ports of an address, and the address with other ones in their place."""
    scheme, rest = url.split("://", 1)
    end = min([rest.index(c) for c in "/?" if c in rest], default=len(rest))
    access, _, hosts = rest[:end].rpartition("@")
    found = []
    for one in hosts.split(","):
        host, _, port = one.partition(":")
        found.append((urllib.parse.unquote(host), int(port or DEFAULT_PORTS[name])))

    def through(ports):
        here = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"{scheme}://{access}{'@' if access else ''}{here}{rest[end:]}"

    return found, through


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-base", type=int, required=True)
    port = parser.parse_args().port_base
    servers, listening = {}, []
    for name, variable in NAMES.items():
        server = servers[name] = Server(name)
        found, through = addresses(name, os.environ[variable])
        ports = list(range(port, port + len(found)))
        port += len(found)
        if name == "kafka":
            for (host, there), here in zip(found, ports):
                for said in {host, "localhost", "127.0.0.1"}:
                    pair = [said.encode() + number.to_bytes(4, "big") for number in (there, here)]
                    server.moved.append(tuple(pair))
        for here, there in zip(ports, found):
            listening.append(await serve(server, here, there))
        print(f"{variable}={through(ports)}", flush=True)

    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    tasks, cuts = set(), 0
    while line := (await commands.readline()).decode().split():
        kind, name, *way, seconds = line
        tasks.add(asyncio.create_task(servers[name].suffer(kind, way[0] if way else "", float(seconds))))
        cuts += 1
    for server in listening:
        server.close()
    counts = ", ".join(f"{server.connections} to {server.name}" for server in servers.values())
    print(f"{cuts} cuts; connections: {counts}", flush=True)
    if servers["kafka"].told == 0:
        sys.exit("no client was told where Kafka is: its links were left out")


asyncio.run(main())
