//! Runs commands outside the confinement for a program in place of `wmill`: `wmill` may write only into the folders of
//! its run, and a test wants to know what the program did.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;

use super::process;

/// Returns a shell function: `outside 'COMMAND'` runs the command in a shell of the test, prints its output, and exits
/// with its status.
pub fn function() -> String {
    static PORT: OnceLock<u16> = OnceLock::new();
    let port = PORT.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || serve(connection));
            }
        });
        port
    });
    // bash reads `~/.bashrc` if its stdin is a socket, as it is for a program that Node.js starts.
    format!(
        "outside() {{ bash --norc -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf \"%s\\0\" \"$1\" >&3\n\
         read -r status <&3; cat <&3; exit $status' outside \"$1\"; }}\n"
    )
}

fn serve(mut connection: TcpStream) {
    let mut text = Vec::new();
    let mut byte = [0];
    while matches!(connection.read(&mut byte), Ok(1)) && byte[0] != 0 {
        text.push(byte[0]);
    }
    let mut command = process::clean_command("sh");
    command.arg("-c").arg(String::from_utf8(text).unwrap());
    let done = process::run(command);
    // The caller may have been killed in the meantime.
    let _ = write!(connection, "{}\n{}", done.status.code().unwrap_or(1), done.stdout_text());
}
