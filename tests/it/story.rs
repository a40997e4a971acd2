//! The main job: what a workspace holds is what the remote gets, said truthfully.

use crate::bed::*;

#[test]
fn a_workspace_goes_to_an_empty_remote_and_its_edits_follow() {
    let sandbox = Sandbox::new();
    sandbox.windmill.state("1-seeded");
    let remote = sandbox.repository();
    let first = sandbox.sync().workspace(windmill::SHOP).remote(&remote).run().expect("pushed");
    assert_eq!(first.commit(), remote.tip("main"));
    let (added, modified, deleted) = first.changed();
    assert!(added > 20 && modified == 0 && deleted == 0, "{:?}", first.changed());

    let again = sandbox.sync().workspace(windmill::SHOP).remote(&remote).run().expect("unchanged");
    assert_eq!(again.commit(), first.commit());
    assert_eq!(remote.log("main").len(), 1);
}
