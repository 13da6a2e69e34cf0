"""Ask the pool to make one trajectory or one activation directory, and wait until its files are there.

This is the whole process that a trajectory costs besides the model server, so it imports next to nothing: run it with
`python -I -S`. Only where no pool answers yet, it starts one, in a full interpreter.

Usage: ask_pool.py KIND VARIANT SAMPLE, with the socket, the config and the process number of the workflow in the
environment variables EMOPROBE_POOL, EMOPROBE_CONFIG and EMOPROBE_OWNER.
"""

import _socket
import posix
import sys

RECONNECTS = 3


def ask(path: str, line: str) -> bytes | None:
    """Send one request and return the whole answer; None where no pool listens or it went away."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(path)
        connection.send(line.encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer or None
    except OSError:
        return None
    finally:
        connection.close()


def start_pool(path: str, *run: str) -> int:
    """Start the pool, if nobody else does so first; return the exit status."""
    root = __file__.rpartition("/scripts/")[0]
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from server.pool.start import main; sys.exit(main())"
    arguments = [sys.executable, "-c", program, root, path, *run]
    child = posix.posix_spawn(sys.executable, arguments, posix.environ)
    return posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])


def main(arguments: list[str]) -> int:
    """Exit status 0: the files are there. Otherwise the reason goes to standard error."""
    given = posix.environ
    path = given[b"EMOPROBE_POOL"].decode()
    run = (given[b"EMOPROBE_CONFIG"].decode(), posix.getcwd(), given[b"EMOPROBE_OWNER"].decode())
    line = "\t".join([*run, *arguments]) + "\n"
    for _ in range(RECONNECTS + 1):
        answer = ask(path, line)
        if answer is None:
            if start_pool(path, *run) != 0:
                return 1
        elif answer.startswith(b"ok"):
            return 0
        else:
            sys.stderr.write(answer.decode(errors="replace"))
            return 1
    sys.stderr.write(f"The pool at {path} went away {RECONNECTS + 1} times; see logs/pool.log of the experiment.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
