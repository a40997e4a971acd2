//! The git configuration of our checkouts. It replaces the configuration of the user, the system and the repository, so
//! what it does not name has git's default.

/// The git attributes that turn off every conversion of content. Attributes in the repository may ask for one (line
/// ends, `filter`, `ident`, encodings), but this file has precedence. `!` means unspecified: git fails if
/// `working-tree-encoding` is only unset.
pub(super) const ATTRIBUTES: &str = "* -text !eol -ident !filter !working-tree-encoding\n";

/// Configuration that replaces the user's and the system's. The reasons of some settings:
///
/// - `safe.directory`: a bare repository on a volume may have any owner. git ignores this setting in the environment.
/// - `protectNTFS`, `protectHFS`: names that Windows does not allow are valid here.
/// - `fetch.unpackLimit`: a fetch keeps its pack, since loose objects of an interrupted fetch cannot be distinguished
///   from others.
/// - `gc`, `maintenance`: no process in the background that outlives the run.
/// - `http.followRedirects`: on a redirect, git would send the token to the new address.
pub(super) const CONFIGURATION: &str = "\
[safe]
\tdirectory = *
[core]
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tlogAllRefUpdates = false
\tprotectNTFS = false
\tprotectHFS = false
[fetch]
\tunpackLimit = 1
[gc]
\tauto = 0
[maintenance]
\tauto = false
[http]
\tfollowRedirects = false
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[gpg]
\tformat = ssh
";
