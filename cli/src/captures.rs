//! `--pcap DIR`: what every interface of the simulated cluster saw, a pcapng file each.
//!
//! The files are made of nothing but the run: little-endian, time from the simulation's beginning
//! as if that were 1970, no name of this machine. The same seed gives the same bytes.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use nodeway_sim::{CapturedInterface, CapturedPacket, Place};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError, PcapResult};

use crate::failure::Failure;

/// `if_tsresol`: nanoseconds, as a power of ten.
const NANOSECONDS: u8 = 9;

/// A folder that takes the captures of one run.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, or takes one in which no captures are yet.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unusable = |error: io::Error| {
            Failure::argument(
                format!(
                    "--pcap: {} cannot be used as a folder: {error}",
                    path.display()
                ),
                "name a folder that you may write to; it is made if it is missing",
            )
        };
        fs::create_dir_all(path).map_err(unusable)?;
        match capture_in(path, true).map_err(unusable)? {
            None => Ok(Self(path.to_owned())),
            Some(other) => Err(Failure::argument(
                format!(
                    "--pcap: {} is there already: captures of two runs would be mixed",
                    other.display()
                ),
                "name another folder, or delete the captures in this one",
            )),
        }
    }

    /// Writes a file an interface, into a folder of that name below if there is one.
    pub(crate) fn write(
        &self,
        below: Option<&str>,
        interfaces: &[CapturedInterface],
    ) -> Result<(), Failure> {
        let folder = below.map_or_else(|| self.0.clone(), |below| self.0.join(below));
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
        for interface in interfaces {
            let path = folder.join(file_name(interface));
            write(&path, interface).map_err(|error| match error {
                PcapError::IoError(error) => failed(&path, &error),
                error => failed(&path, &error),
            })?;
        }
        Ok(())
    }
}

fn failed(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::argument(
        format!("--pcap: {} cannot be written: {error}", path.display()),
        "make room or name another folder; what was written so far is not the whole run",
    )
}

/// A capture in a folder, or in one right below it.
fn capture_in(folder: &Path, below: bool) -> io::Result<Option<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.extension().is_some_and(|it| it == "pcapng") {
            return Ok(Some(path));
        }
        if below
            && entry.file_type()?.is_dir()
            && let Some(found) = capture_in(&path, false)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// `pod_default_client_eth0.pcapng`: whose and which device, no two alike.
fn file_name(interface: &CapturedInterface) -> String {
    let (kind, place) = match &interface.place {
        Place::Pod(name) => ("pod", name),
        Place::Node(name) => ("node", name),
        Place::Outside(name) => ("outside", name),
    };
    let device = interface.device.replace("veth of ", "veth/");
    format!("{kind}_{}_{}.pcapng", safe(place), safe(&device))
}

/// A name that any file system takes. `/` becomes `_`, which is in no name of Kubernetes; what is
/// neither letter, digit, `-` nor `.` is written as `%` and its bytes in hexadecimal.
fn safe(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'/' => "_".to_owned(),
            b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn write(path: &Path, interface: &CapturedInterface) -> PcapResult<()> {
    let file = File::create_new(path).map_err(PcapError::IoError)?;
    let mut file = BufWriter::new(file);
    pcapng(interface, &mut file)?;
    file.flush().map_err(PcapError::IoError)
}

fn pcapng(interface: &CapturedInterface, file: impl Write) -> PcapResult<()> {
    let section = SectionHeaderBlock {
        endianness: Endianness::Little,
        options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(
            "nodeway",
        ))],
        ..SectionHeaderBlock::default()
    };
    let mut writer = PcapNgWriter::with_section_header(file, section)?;
    let mut description = InterfaceDescriptionBlock::new(DataLink::RAW, 0);
    description.options = vec![
        InterfaceDescriptionOption::IfName(Cow::Borrowed(&interface.device)),
        InterfaceDescriptionOption::IfDescription(Cow::Owned(format!(
            "{} of {}",
            interface.device, interface.place
        ))),
        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
    ];
    writer.write_pcapng_block(description)?;
    for packet in &interface.packets {
        writer.write_pcapng_block(block(packet))?;
    }
    Ok(())
}

fn block(packet: &CapturedPacket) -> EnhancedPacketBlock<'_> {
    let mut block = EnhancedPacketBlock::default();
    block.timestamp = packet.time.since_start();
    block.original_len = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
    block.data = Cow::Borrowed(&packet.bytes);
    let comments = packet.comments.iter();
    block.options = comments
        .map(|comment| EnhancedPacketOption::Comment(Cow::Borrowed(comment)))
        .collect();
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::pod(
        Place::Pod("default/client".to_owned()),
        "eth0",
        "pod_default_client_eth0.pcapng"
    )]
    #[case::other_end(
        Place::Node("node-1".to_owned()),
        "veth of default/client",
        "node_node-1_veth_default_client.pcapng"
    )]
    #[case::outside(Place::Outside("client".to_owned()), "uplink", "outside_client_uplink.pcapng")]
    #[case::out_of_the_folder(
        Place::Outside("../a b_c".to_owned()),
        "lo",
        "outside_.._a%20b%5Fc_lo.pcapng"
    )]
    fn a_file_is_named_after_place_and_device(
        #[case] place: Place,
        #[case] device: &str,
        #[case] name: &str,
    ) {
        let interface = CapturedInterface {
            place,
            device: device.to_owned(),
            packets: Vec::new(),
        };
        assert_eq!(file_name(&interface), name);
    }

    /// Takes a few bytes, then is full.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[rstest]
    fn a_full_disk_is_an_error_wherever_it_comes(#[values(0, 10, 40, 100, 150)] room: usize) {
        let interface = CapturedInterface {
            place: Place::Node("n".to_owned()),
            device: "lo".to_owned(),
            packets: vec![CapturedPacket {
                time: nodeway_sim::Time::ZERO,
                bytes: vec![0; 500],
                comments: Vec::new(),
            }],
        };
        let error = pcapng(&interface, Full(room)).unwrap_err();
        assert!(matches!(error, PcapError::IoError(_)), "{error}");
    }
}
