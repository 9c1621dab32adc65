//! A packet's bytes, from the network header on.

#![expect(unsafe_code, reason = "packets are read through pointers and helpers")]

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_NET;
use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_pull_data};
use aya_ebpf::programs::TcContext;
use nodeway_datapath::Bytes;

/// An Ethernet header; VLAN tags are stripped before tc sees a packet.
const ETHERNET: usize = 14;

/// No header lies further in: four extension headers of 2,048 bytes each, twice. The verifier
/// wants a bound on what is added to a packet's pointer.
const FARTHEST: usize = 0x7fff;

/// The linear bytes of a packet of an Ethernet device: quick, but not always all that there are.
pub struct Linear<'a>(pub &'a TcContext);

impl Bytes for Linear<'_> {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > FARTHEST {
            return None;
        }
        let start = self.0.data().wrapping_add(ETHERNET).wrapping_add(offset);
        if start.wrapping_add(N) > self.0.data_end() {
            return None;
        }
        // SAFETY: `start` lies in the packet and `N` bytes from it do too, as just compared.
        Some(unsafe { (start as *const [u8; N]).read_unaligned() })
    }
}

/// Any bytes of a packet of an Ethernet device.
pub struct Whole<'a>(pub &'a TcContext);

impl Bytes for Whole<'_> {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        let offset = u32::try_from(offset.wrapping_add(ETHERNET)).ok()?;
        // SAFETY: the helper writes all of the `N` bytes, or says that it did not.
        let loaded = unsafe {
            bpf_skb_load_bytes(
                self.0.as_ptr().cast_const(),
                offset,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        if loaded == 0 {
            // SAFETY: all of them are written.
            Some(unsafe { bytes.assume_init() })
        } else {
            None
        }
    }
}

/// The bytes of a packet of any device: its link header may have any length, also none. The only
/// helper that knows where the network header begins sees linear bytes alone, so a packet is
/// first made linear as far as headers can reach.
pub struct AnyDevice<'a>(&'a TcContext);

/// How much of a packet is made linear where it is not.
const HEADERS: u32 = 4_096;

impl<'a> AnyDevice<'a> {
    /// A packet that can be read.
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        let length = context.len();
        let reach = if length < HEADERS { length } else { HEADERS };
        let linear = context.data_end().wrapping_sub(context.data());
        if linear < reach as usize {
            // SAFETY: no pointer into the packet is held over the call. When it fails, what is not
            // linear reads as if it were not there.
            unsafe { bpf_skb_pull_data(context.skb.skb, reach) };
        }
        Self(context)
    }
}

impl Bytes for AnyDevice<'_> {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        let offset = u32::try_from(offset).ok()?;
        // SAFETY: the helper writes all of the `N` bytes, or says that it did not.
        let loaded = unsafe {
            bpf_skb_load_bytes_relative(
                self.0.as_ptr().cast_const(),
                offset,
                bytes.as_mut_ptr().cast(),
                N as u32,
                BPF_HDR_START_NET,
            )
        };
        if loaded == 0 {
            // SAFETY: all of them are written.
            Some(unsafe { bytes.assume_init() })
        } else {
            None
        }
    }
}
