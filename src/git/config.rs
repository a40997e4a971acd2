//! The git configuration of our checkouts. It replaces the configuration of the user, the system and the repository, so
//! what it does not name has git's default.

/// The git attributes that turn off every conversion of content. Attributes in the repository may ask for one (line
/// ends, `filter`, `ident`, encodings), but this file has precedence. `!` means unspecified: git fails if
/// `working-tree-encoding` is only unset.
pub(super) const ATTRIBUTES: &str = "* -text !eol -ident !filter !working-tree-encoding\n";

/// Configuration that replaces the user's and the system's.
pub(super) const CONFIGURATION: &str = "\
# Written for one run.
[safe]
\t# A bare repository on a volume may have any owner. git ignores this setting in the environment.
\tdirectory = *
[core]
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tlogAllRefUpdates = false
\t# Names that Windows does not allow are valid here.
\tprotectNTFS = false
\tprotectHFS = false
[fetch]
\t# A fetch keeps its pack: loose objects of an interrupted fetch cannot be distinguished from others.
\tunpackLimit = 1
[gc]
\t# No process in the background that outlives the run.
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[http]
\t# On a redirect, git would send the token to the new address.
\tfollowRedirects = false
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[gpg]
\tformat = ssh
";
