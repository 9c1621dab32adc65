use std::collections::BTreeSet;

use super::*;

#[test]
fn a_redirect_is_read_by_the_name_that_it_is_written_with() {
    for redirect in Redirect::ALL {
        let name = redirect.to_string();
        assert_eq!(name.parse(), Ok(*redirect));
        assert_eq!(serde_json::to_value(redirect).unwrap(), name);
        let unknown = UnknownRedirect("none".to_owned()).to_string();
        assert!(unknown.contains(&format!("`{name}`")), "{unknown}");
    }
    let unknown = UnknownRedirect("none".to_owned());
    assert_eq!("none".parse::<Redirect>(), Err(unknown));
}

#[test]
fn only_what_goes_past_the_listener_is_open() {
    for redirect in Redirect::ALL {
        let open = Missing::ALL.iter().filter_map(|missing| {
            let Fates { established, new } = redirect.fates(*missing);
            let open = (established.is_open(), new.is_open());
            (open != (false, false)).then_some((*missing, open))
        });
        assert_eq!(
            open.collect::<Vec<_>>(),
            [
                (Missing::Config, (false, true)),
                (Missing::Past, (true, false))
            ],
            "{redirect}"
        );
    }
}

#[test]
fn what_is_missing_and_what_becomes_of_it_read_differently() {
    let missing: BTreeSet<_> = Missing::ALL.iter().map(|it| it.text()).collect();
    assert_eq!(missing.len(), Missing::ALL.len());
    let fates = [
        Fate::Served,
        Fate::PassedBy,
        Fate::Answered(503),
        Fate::Answered(504),
        Fate::GivenUp,
        Fate::Ends(Failure::ConnectionRefused),
        Fate::Ends(Failure::TimedOut),
    ];
    let texts: BTreeSet<_> = fates.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), fates.len(), "{texts:?}");
}
