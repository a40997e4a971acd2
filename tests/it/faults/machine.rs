//! Faults of the machine, of large answers and in DATA_DIR, which could fill disk or memory or block a run forever.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{History, Scenario};
use support::replay::{Replay, State, the_checkout_in};
use support::*;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "a connection that breaks 13 times in a row, each time later in the answer",
        injected: "in the answer to a fetch of 4 MB, for a new and for an existing checkout",
        asserted: "DATA_DIR keeps its size: no unfinished file of git is left",
        test: "machine::broken_connections_leave_nothing_on_the_volume",
    },
    Scenario {
        fault: "leftovers of a killed git",
        injected: "unfinished packs, objects and indexes, packs without an index, a `.keep` file of a pack",
        asserted: "they are removed before the next fetch",
        test: "machine::leftovers_of_a_killed_git_are_removed_before_the_next_fetch",
    },
    Scenario {
        fault: "an answer of 30 MB: brackets, zeros, objects, one string",
        injected: "in each request to Windmill, with status 200 and 403",
        asserted: "the service takes at most 32 MB",
        test: "machine::large_answers_take_little_memory",
    },
    Scenario {
        fault: "a workspace with 50,000 entries",
        injected: "a first sync, an unchanged one, one with a changed item, a forced one",
        asserted: "the memory for each entry is small enough for 250,000 entries in 32 MB",
        test: "machine::a_large_workspace_takes_little_memory",
    },
    Scenario {
        fault: "a FIFO, a symlink to a file or folder outside, a hard link, a folder that is not empty",
        injected: "in place of each file of the service in DATA_DIR, and of git's own files",
        asserted: "no program waits for the FIFO; files outside do not change",
        test: "machine::fifos_links_and_folders_in_place_of_our_files_are_survived",
    },
    Scenario {
        fault: "a `wmill` that writes outside its folders",
        injected: "into DATA_DIR, the home, `/tmp` and `git/` of the checkout",
        asserted: "the writes fail; `/dev/null` is writable; `oom_score_adj` is 1000; core files are off",
        test: "machine::wmill_can_write_only_into_its_folders",
    },
    Scenario {
        fault: "an endless list of refs, and an endless pack",
        injected: "in the remote's answers to a fetch",
        asserted: "`timeout` names the step; the service takes at most 32 MB, and the volume keeps less than 200 KiB",
        test: "machine::an_endless_answer_of_the_remote_ends_with_a_timeout",
    },
    Scenario {
        fault: "too few file descriptors",
        injected: "a limit of 8, 12, 16, 24 and 48 for `sync`, of 24 and 48 for `serve`",
        asserted: "`sync` prints its JSON, `serve` answers",
        test: "machine::sync_and_serve_answer_under_a_limit_of_descriptors",
    },
    Scenario {
        fault: "SIGHUP, also if it is ignored from the start, as with `nohup`",
        injected: "to `sync` and `restore` during a pull, and to an idle `serve`",
        asserted: "`shutting_down`; if SIGHUP is ignored, `pushed`",
        test: "machine::sighup_is_a_regular_shutdown_unless_it_is_ignored",
    },
    Scenario {
        fault: "a killed `sync` with a `wmill` that continues",
        injected: "beside an idle service with the same DATA_DIR",
        asserted: "the service ends the orphan and removes its token without another run",
        test: "machine::an_idle_service_removes_the_token_of_a_killed_run",
    },
    Scenario {
        fault: "names of 255 and of 256 bytes",
        injected: "in the repository, in the folder of the backup",
        asserted: "the sync succeeds; a warning names the longer one as an invalid entry",
        test: "machine::a_name_of_256_bytes_is_an_invalid_entry",
    },
];

/// For each of the next fetches, the number of bytes after which the connection breaks. Later fetches are complete.
type Breaks = Arc<Mutex<VecDeque<usize>>>;

/// A connection to the remote that breaks.
struct Line {
    address: SocketAddr,
    breaks: Breaks,
    http: GitHttp,
}

impl Line {
    fn to(http: GitHttp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, breaks) = (listener.local_addr().unwrap(), Breaks::default());
        let server: SocketAddr = http.base().trim_start_matches("http://").parse().unwrap();
        let of_thread = Arc::clone(&breaks);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let breaks = Arc::clone(&of_thread);
                std::thread::spawn(move || carry(client, TcpStream::connect(server).unwrap(), &breaks));
            }
        });
        Self { address, breaks, http }
    }

    fn breaks_after(&self, bytes: impl IntoIterator<Item = usize>) {
        self.breaks.lock().unwrap().extend(bytes);
    }

    /// Removes the remaining breaks and returns their number.
    fn holds_again(&self) -> usize {
        self.breaks.lock().unwrap().drain(..).count()
    }
}

impl Remote for Line {
    fn url(&self) -> String {
        self.http.url().replace(&self.http.base(), &format!("http://{}", self.address))
    }

    fn credentials(&self) -> Vec<(String, String)> {
        self.http.credentials()
    }
}

/// Forwards both directions, the answer to a fetch only up to its limit.
fn carry(client: TcpStream, server: TcpStream, breaks: &Breaks) {
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let bytes_left = Arc::new(AtomicUsize::new(usize::MAX));
    let (limit, breaks) = (Arc::clone(&bytes_left), Arc::clone(breaks));
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_client.read(&mut chunk) {
            if chunk[..length].windows(13).any(|window| window == b"command=fetch") {
                limit.store(breaks.lock().unwrap().pop_front().unwrap_or(usize::MAX), Ordering::Relaxed);
            }
            if to_server.write_all(&chunk[..length]).is_err() {
                return;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client, mut carried) = (server, client, 0);
    let mut chunk = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from_server.read(&mut chunk) {
        let length = length.min(bytes_left.load(Ordering::Relaxed).saturating_sub(carried));
        if length == 0 || to_client.write_all(&chunk[..length]).is_err() {
            break;
        }
        carried += length;
    }
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
}

/// Returns bytes that do not compress.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 + u64::from(seed);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

/// Returns the total size of the files below a folder, in bytes.
fn bytes_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let about = entry.metadata().unwrap();
        bytes += if about.is_dir() { bytes_below(&entry.path()) } else { about.len() };
    }
    bytes
}

#[test]
#[ignore = "long: just test-faults"]
fn broken_connections_leave_nothing_on_the_volume() {
    let replay = Replay::new();
    let line = Line::to(GitHttp::serve(&replay.remote));
    let sync = replay.sandbox.sync().remote(&line);
    let grow = |number: u8| {
        let mut commit = replay.remote.commit("main");
        for file in 0..150 {
            commit = commit.file(&format!("docs/{file}.txt"), format!("{number} {file}\n"));
        }
        // All files are new, so git sends all of them.
        commit.file("big.bin", noise(number, 4 << 20)).done("grow");
    };
    for (number, runs) in [(0_u8, 3), (1, 1)] {
        grow(number);
        replay.hold(if number == 0 { State::Seeded } else { State::Edited });
        let mut sizes = Vec::new();
        for run in 0..runs {
            // A run makes four attempts, and a fifth one if it replaces the checkout.
            line.breaks_after((0..6).map(|attempt| 200 + (run * 4 + attempt) * (280 << 10)));
            let broken = sync.run();
            assert!(broken.code().starts_with("git_"), "{broken}");
            assert!(line.holds_again() <= 2, "{broken}");
            sizes.push(bytes_below(&replay.sandbox.data()));
        }
        assert!(sizes.iter().all(|size| size.abs_diff(sizes[0]) < 64 << 10), "{sizes:?}");
        // If the connection breaks near the end of the answer, the pack may be complete.
        line.breaks_after([(4 << 20) + 30_000]);
        let healthy = sync.run();
        assert!(["pushed", "unchanged"].contains(&healthy.code().as_str()), "{healthy}");
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn leftovers_of_a_killed_git_are_removed_before_the_next_fetch() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let git = replay.checkout().join("git");
    let leftovers = [
        "objects/pack/tmp_pack_1",
        "objects/pack/tmp_idx_1",
        "objects/pack/.tmp-1-pack-1",
        "objects/pack/pack-0123.pack",
        "objects/17/tmp_obj_1",
        "objects/tmp_objdir-incoming-1/17/x",
        "shallow_1",
    ];
    for name in leftovers {
        fs::create_dir_all(git.join(name).parent().unwrap()).unwrap();
        fs::write(git.join(name), "left").unwrap();
    }
    replay.remote.commit_files("main", &[("OTHER.md", "of another\n")]);
    replay.hold(State::Edited);
    replay.sync().run().expect("pushed");
    for name in leftovers {
        assert!(!git.join(name).exists(), "{name}");
    }
    // This is a pack that a fetch has received, but that no ref uses yet.
    let pack = fs::read_dir(git.join("objects/pack")).unwrap().next().expect("a pack").unwrap().path();
    fs::write(pack.with_extension("keep"), "fetch-pack 1 on host").unwrap();
    replay.hold(State::Seeded);
    replay.sync().run().expect("pushed");
    let kept = fs::read_dir(git.join("objects/pack")).unwrap().flatten();
    assert!(kept.into_iter().all(|entry| entry.path().extension().is_none_or(|ending| ending != "keep")));
}

/// The part of the remote's answer that never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endless {
    Advertisement,
    Pack,
}

/// An HTTP remote that sends an endless answer, some megabytes per second.
struct EndlessRemote(SocketAddr);

impl EndlessRemote {
    fn start(what: Endless) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || answer_without_end(client, what));
            }
        });
        Self(address)
    }
}

impl Remote for EndlessRemote {
    fn url(&self) -> String {
        format!("http://{}/backup.git", self.0)
    }

    fn credentials(&self) -> Vec<(String, String)> {
        vec![("GIT_TOKEN".to_owned(), "a-token-of-no-account".to_owned())]
    }
}

/// Returns a line of git's protocol.
fn packet(content: &[u8]) -> Vec<u8> {
    [format!("{:04x}", content.len() + 4).as_bytes(), content].concat()
}

fn answer_without_end(mut client: TcpStream, what: Endless) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let length = String::from_utf8_lossy(&head).lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = client.read_exact(&mut body);
    let tip = "1".repeat(40);
    let answer = |kind: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\n\r\n");
    let mut send = |bytes: &[u8]| client.write_all(bytes).is_ok();
    let is_question = head.starts_with(b"GET ");
    if is_question {
        let capabilities = "side-band-64k ofs-delta shallow no-progress allow-tip-sha1-in-want";
        send(answer("advertisement").as_bytes());
        send(&packet(b"# service=git-upload-pack\n"));
        send(b"0000");
        send(&packet(format!("{tip} HEAD\0{capabilities}\n").as_bytes()));
        send(&packet(format!("{tip} refs/heads/main\n").as_bytes()));
        if what == Endless::Pack {
            send(b"0000");
            return;
        }
        for number in 0.. {
            let lines = (0..100).flat_map(|line| packet(format!("{tip} refs/heads/x{number}-{line}\n").as_bytes()));
            if !send(&lines.collect::<Vec<_>>()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    send(answer("result").as_bytes());
    send(&packet(format!("shallow {tip}").as_bytes()));
    send(b"0000");
    // git first requests the shallow commits, and then the pack.
    if !body.windows(4).any(|word| word == b"done") {
        return;
    }
    send(&packet(b"NAK\n"));
    // The pack is one blob of many terabytes, in uncompressed blocks.
    let blob = [0xb0 | 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x78, 0x01];
    send(&packet(&[b"\x01PACK\0\0\0\x02\0\0\0\x01", &blob[..]].concat()));
    let block = [&[0, 0, 0x40, 0xff, 0xbf][..], &noise(1, 0x4000)].concat();
    while send(&packet(&[&[1], &block[..]].concat())) {
        std::thread::sleep(Duration::from_millis(4));
    }
}

#[test]
#[ignore = "long: just test-faults"]
fn an_endless_answer_of_the_remote_ends_with_a_timeout() {
    const PEAK_KB_MAX: u64 = 32 << 10;
    let replay = Replay::new();
    for what in [Endless::Advertisement, Endless::Pack] {
        let sync = replay.sandbox.sync().remote(&EndlessRemote::start(what)).env("SYNC_TIMEOUT", "6s");
        let (peak, struck) = peak_of(sync.start());
        assert_eq!(struck.code(), "timeout", "{what:?}: {struck}");
        assert!(struck.message().contains("fetch"), "{what:?}: {struck}");
        assert!(peak > 0 && peak <= PEAK_KB_MAX, "{what:?}: {peak} kB");
        let left = bytes_below(&replay.sandbox.data());
        assert!(left < 200 << 10, "{what:?}: {left} bytes");
        assert!(replay.sandbox.processes().is_empty(), "{:?}", replay.sandbox.processes());
    }
    replay.sync().run().expect("pushed");
}

/// Returns the peak memory of our process in kilobytes, and its outcome.
fn peak_of(mut running: Running) -> (u64, Outcome) {
    let status = format!("/proc/{}/status", running.pid());
    let mut peak = 0;
    while running.is_running() {
        let now = fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = kilobytes.unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(10));
    }
    (peak, running.finish())
}

#[test]
#[ignore = "long: just test-faults"]
fn large_answers_take_little_memory() {
    const PEAK_KB_MAX: u64 = 32 << 10;
    let replay = Replay::new();
    replay.sync().run().expect("pushed");
    let long = 30 << 20;
    let bodies = [
        ("brackets", "[".repeat(long)),
        ("zeros", format!("[{}0]", "0,".repeat(long / 2))),
        ("objects", format!("[{}0]", "{\"\":0},".repeat(long / 7))),
        ("a few objects", format!("[{}0]", "{\"\":0},".repeat(20_000))),
        ("one string", format!("\"{}\"", "x".repeat(long))),
        ("a string of the longest", format!("{{\"files\":{{\"a.ts\":\"{}\"}}}}", "x".repeat((8 << 20) - 100))),
    ];
    let questions =
        ["/users/whoami", "/version", "list_ws_specific", "file_resource_type_to_file_ext_map", "shared_ui/get"];
    for question in questions {
        for (name, body) in &bodies {
            for status in [200, 403] {
                replay.sandbox.windmill.fail(question, Fault::Answer(status, "application/json", body.clone()));
                let (peak, struck) = peak_of(replay.sync().arg("--force").start());
                replay.sandbox.windmill.heal();
                println!("{question} {name} {status}: {} after {peak} kB", struck.code());
                assert!(peak > 0 && peak <= PEAK_KB_MAX, "{question}, {name}, {status}: {peak} kB\n{struck}");
            }
        }
    }
    replay.sync().run().expect("unchanged");
}

#[test]
#[ignore = "long: just test-faults"]
fn a_large_workspace_takes_little_memory() {
    /// An export may have 250,000 entries, but the stand-in would need minutes for them.
    const COUNT: usize = 50_000;
    /// The limit is 32 MB for 250,000 entries. The released program needs at most 6 MB of it for any workspace.
    const GROWTH_KB_MAX: u64 = ((32 - 6) << 10) * COUNT as u64 / 250_000;
    let (small, _) = peak_of(Replay::new().sync().start());
    let path = |number: usize| format!("f/many_{}/some_variable_{number}", number % 500);
    let replay = Replay::with_files(|state| {
        let edited = usize::from(state == State::Edited);
        let content = |number| if number == 7 { format!("value: {edited}\n") } else { "value: 0\n".to_owned() };
        (0..COUNT).map(|number| (format!("{}.variable.yaml", path(number)), content(number).into_bytes())).collect()
    });
    let fill = |value: &str| {
        let mut workspace = Workspace::empty();
        (0..COUNT).for_each(|number| workspace.add_variable(&path(number), "0", false));
        workspace.add_variable(&path(7), value, false);
        replay.sandbox.windmill.set("shop", workspace);
    };
    fill("0");
    let sync = replay.sync().within(Duration::from_secs(900));
    let run = |what: &str, sync: &Run<'_>, code: &str| {
        let (peak, outcome) = peak_of(sync.start());
        println!("{what}: {} after {peak} kB", outcome.code());
        assert_eq!(outcome.code(), code, "{what}: {outcome}");
        assert!(peak > small && peak <= small + GROWTH_KB_MAX, "{what}: {peak} kB, and {small} kB for a small one");
    };
    run("first", &sync, "pushed");
    run("unchanged", &sync, "unchanged");
    replay.hold(State::Edited);
    fill("1");
    run("one changed", &sync, "pushed");
    run("full", &sync.arg("--force"), "unchanged");
}

/// The timeout that ends a run that waits for the other end of a FIFO.
const SOON: &str = "20s";

#[test]
#[ignore = "long: just test-faults"]
fn fifos_links_and_folders_in_place_of_our_files_are_survived() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    history.assert_healed("nothing", &replay.sync(), &replay.expected());
    let (outside, folder) = (replay.sandbox.file("outside", "outside"), replay.sandbox.scratch("outside-folder"));
    fs::write(folder.join("inside"), "inside").unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let places: [(&str, Make<'_>); 5] = [
        ("a FIFO", &|path| {
            let mut command = process::clean_command("mkfifo");
            command.arg(path);
            process::run(command).must_succeed();
        }),
        ("a link to a file", &|path| symlink(&outside, path).unwrap()),
        ("a link to a folder", &|path| symlink(&folder, path).unwrap()),
        ("a hard link", &|path| fs::hard_link(&outside, path).unwrap()),
        ("a folder", &|path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("x"), "x").unwrap();
        }),
    ];
    let root = replay.sandbox.data().join("windmill-git-sync");
    let checkout = the_checkout_in(&replay.sandbox.data());
    let mut files = own_files(&root);
    for name in ["HEAD", "config", "index", "shallow", "info/attributes", "refs/sync/tip", "packed-refs"] {
        files.push(checkout.join("git").join(name));
    }
    files.push(checkout.join("tree/fifo"));
    files.push(root.join("runs/shop"));
    assert!(files.len() > 12, "{files:?}");
    let mut state = State::Seeded;
    for path in files {
        for (kind, put) in &places {
            let fault = format!("{kind} in place of {}", path.display());
            state = state.other();
            replay.hold(state);
            remove(&path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            put(&path);
            history.assert_healed(&fault, &replay.sync().env("SYNC_TIMEOUT", SOON), &replay.expected());
            assert_eq!(fs::read(&outside).unwrap(), b"outside", "{fault}");
            assert_eq!(fs::read(folder.join("inside")).unwrap(), b"inside", "{fault}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{fault}");
        }
    }
}

fn remove(path: &Path) {
    let Ok(about) = fs::symlink_metadata(path) else { return };
    if about.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    assert!(!about.file_type().is_fifo(), "{} is still a FIFO", path.display());
}

/// Returns our files that are not in a checkout's `git/` or `tree/`.
fn own_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            found.push(path);
        } else if !path.ends_with("git") && !path.ends_with("tree") {
            found.extend(own_files(&path));
        }
    }
    found
}

#[test]
fn wmill_can_write_only_into_its_folders() {
    let replay = Replay::new();
    let data = replay.sandbox.data();
    let tries = format!(
        "for place in '{}' '{}' /tmp/windmill-git-sync-confined-$$ ../git/escaped ../escaped; do\n\
         echo x 2>/dev/null >\"$place\" && echo \"wrote $place\"\ndone\n\
         echo x >/dev/null && echo null\necho x >\"$HOME/scratch\" && echo scratch\n\
         echo \"core $(ulimit -c)\"\n\
         # The service sets it once the program has started.\n\
         for try in 1 2 3 4 5 6 7 8 9 10; do read -r score </proc/$$/oom_score_adj\n\
         [ $score = 1000 ] && break; sleep 0.1; done\necho \"score $score\"\n",
        data.join("escaped").display(),
        replay.sandbox.home().join("escaped").display(),
    );
    replay
        .sandbox
        .program("wmill", &format!("here='{}'\n{tries}{}", replay.states_of_script().0, replay.states_of_script().1));
    let outcome = replay.sync().env("LOG_LEVEL", "debug").run().expect("pushed");
    let has = |line: &str| outcome.stderr.contains(line);
    assert!(has("null") && has("scratch") && has("score 1000") && has("core 0"), "{outcome}");
    if has("no Landlock") {
        process::say("this kernel has no Landlock");
        return;
    }
    assert!(!has("wrote "), "{outcome}");
    assert!(!data.join("escaped").exists());
}

#[test]
#[ignore = "long: just test-faults"]
fn sync_and_serve_answer_under_a_limit_of_descriptors() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    for (round, descriptors) in [8, 12, 16, 24, 48].into_iter().enumerate() {
        let fault = format!("{descriptors} descriptors");
        replay.hold(if round % 2 == 1 { State::Edited } else { State::Seeded });
        let limited = format!("ulimit -n {descriptors}\nexec '{}' \"$@\"", run::program().display());
        let limited = replay.sandbox.program("limited", &limited);
        let struck = replay.sync().program(limited.clone()).run();
        println!("{fault}: {}", struck.code());
        assert!(!struck.stderr.contains("panicked"), "{fault}: {struck}");
        history.assert_true_report(&fault, &struck);
        if descriptors >= 24 {
            let service = replay.sandbox.service().remote(&replay.remote).program(limited).serve();
            let answer = service.post_sync("");
            println!("{fault}: {}", answer.text());
            assert_eq!(service.get("/health").status, 200, "{fault}: {}", service.log());
            assert!(!service.log().contains("panicked"), "{fault}: {}", service.log());
        }
        history.assert_grown(&fault);
        history.assert_healed(&fault, &replay.sync(), &replay.expected());
    }
}

#[test]
fn sighup_is_a_regular_shutdown_unless_it_is_ignored() {
    let replay = Replay::new();
    let waits = "[ \"$1\" = --version ] && { echo 'CLI version: 1.819.0'; exit; }\nsleep 3\n";
    let (head, rest) = replay.states_of_script();
    replay.sandbox.program("wmill", &format!("here='{head}'\n{waits}{rest}"));
    let pulling = replay.sandbox.data().join("windmill-git-sync/runs/shop/wmill");
    let ours = run::program();
    let nohup = replay.sandbox.program("ignoring", &format!("trap '' HUP\nexec '{}' \"$@\"", ours.display()));
    // The tests may run under `nohup` themselves.
    let default = format!("exec env --default-signal=HUP '{}' \"$@\"", ours.display());
    let default = replay.sandbox.program("not-ignoring", &default);
    for (program, code) in [(&default, "shutting_down"), (&nohup, "pushed")] {
        let running = replay.sync().env("SHUTDOWN_GRACE", "0s").program(program.clone()).start();
        eventually("wmill pulls", || pulling.exists().then_some(()));
        process::signal(running.pid(), rustix::process::Signal::HUP);
        running.finish().expect(code);
    }
    let restore = replay.sandbox.command("restore").remote(&replay.remote).arg("--yes").env("SHUTDOWN_GRACE", "0s");
    let restoring = restore.program(default.clone()).start();
    eventually("wmill pulls", || pulling.exists().then_some(()));
    process::signal(restoring.pid(), rustix::process::Signal::HUP);
    restoring.finish().expect("shutting_down");
    let mut service = replay.sandbox.service().remote(&replay.remote).program(default).serve();
    process::signal(service.pid(), rustix::process::Signal::HUP);
    assert_eq!(service.wait().code(), Some(0), "{}", service.log());
}

#[test]
#[ignore = "long: just test-faults"]
fn an_idle_service_removes_the_token_of_a_killed_run() {
    let replay = Replay::new();
    let (head, rest) = replay.states_of_script();
    let waits = "[ \"$1\" = --version ] && { echo 'CLI version: 1.819.0'; exit; }\ntrap '' TERM\nsleep 60\nsleep 60\n";
    replay.sandbox.program("wmill", &format!("here='{head}'\n{waits}{rest}"));
    let service = replay.sandbox.service().remote(&replay.remote).serve();
    let folder = replay.sandbox.data().join("windmill-git-sync/runs/shop");
    let running = replay.sync().start();
    eventually("wmill pulls", || folder.join("wmill").exists().then_some(()));
    running.kill();
    eventually("the orphan and its folder are gone", || (!folder.exists()).then_some(()));
    assert!(replay.sandbox.processes().iter().all(|process| process.pid == service.pid()), "an orphan is left");
}

#[test]
#[ignore = "long: just test-faults"]
fn a_name_of_256_bytes_is_an_invalid_entry() {
    let replay = Replay::new();
    let mut history = History::of(&replay.remote, "main");
    let (longest, too_long) = ("n".repeat(255), "n".repeat(256));
    let blob = replay.remote.store_blob(b"long\n");
    replay.remote.commit("main").entry("100644", &longest, &blob).entry("100644", &too_long, &blob).done("long names");
    history.begin_again();
    let outcome = replay.sync().run().expect("pushed");
    assert!(outcome.warnings().iter().any(|warning| warning.contains(&too_long[..40])), "{outcome}");
    assert!(replay.remote.regular_files("main").contains_key(&longest));
    history.assert_true_report("long names", &outcome);
}
