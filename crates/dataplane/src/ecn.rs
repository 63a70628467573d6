//! ECN and DSCP across the tunnel (RFC 6040, RFC 4301 section 5.1.2).

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The outer traffic class of an inner one: DSCP and ECN are copied (RFC 6040 4.1, normal mode).
#[must_use]
pub fn encapsulate(inner: u8) -> u8 {
    inner
}

/// The inner traffic class to deliver; `None` if the packet must be dropped: congestion was marked
/// on the way and the inner packet cannot carry the mark (RFC 6040 4.2, figure 4). The inner DSCP
/// stays.
#[must_use]
pub fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (ECT_0, ECT_1) => ECT_1,
        (_, CE) => CE,
        (inner, _) => inner,
    };
    Some((inner & !3) | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_of_rfc_6040_figure_4() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                let dscp = 0xb8;
                let got = decapsulate(dscp | inner, outer);
                assert_eq!(got, expected.map(|e| dscp | e), "inner {inner} outer {outer}");
            }
        }
        assert_eq!(encapsulate(0xba), 0xba);
    }
}
