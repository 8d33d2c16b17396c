// Where experts' records lie within a fixed number of bytes. Bookkeeping only.
//
// Records lie side by side, and what lies between them is a hole. No record moves: others may be at work with
// it. So the holes may be enough together for a record and each too small. Then neighbours have to leave, and
// cheapest_run() says which.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace edgemoe {

class Places {
  public:
    struct Hole {
        std::int64_t offset, num_bytes;
    };
    // Neighbouring experts whose bytes become one hole together with the holes beside them.
    struct Run {
        double cost = std::numeric_limits<double>::infinity();
        std::vector<int> experts;
    };
    // What it costs that an expert leaves; infinite where it may not.
    using Cost = std::function<double(int expert)>;

    // For the records of experts 0, 1, ... of these sizes.
    Places(std::int64_t capacity_bytes, std::vector<std::int64_t> record_sizes);

    // Whether there is a hole that the expert fits in.
    bool fits(int expert) const;
    // Puts it into the smallest of these; false where there is none.
    bool put(int expert);
    // Its bytes are a hole, or part of one.
    void remove(int expert);

    bool contains(int expert) const { return at(expert).offset >= 0; }
    // From the first byte on; of an expert that is contained.
    std::int64_t offset(int expert) const { return at(expert).offset; }
    std::vector<Hole> holes() const;

    // Of the runs that contain expert `within` and leave a hole of `num_bytes` or more, the one whose costs
    // are the least in sum; of infinite cost where there is none.
    Run cheapest_run(int within, std::int64_t num_bytes, const Cost& cost_of) const;

  private:
    static constexpr int kNone = -1;

    // A record, numbered as its expert, or a hole, with a number behind these. In the order of their offsets.
    struct Block {
        std::int64_t num_bytes = 0, offset = -1;
        int previous = kNone, next = kNone;
    };

    Block& at(int block) { return blocks_[static_cast<std::size_t>(block)]; }
    const Block& at(int block) const { return blocks_[static_cast<std::size_t>(block)]; }
    bool is_hole(int block) const { return block >= num_experts_; }
    // The smallest hole of so many bytes, the first of equals; kNone where there is none.
    int find_hole(std::int64_t num_bytes) const;
    int new_hole(std::int64_t offset, std::int64_t num_bytes);
    void link(int previous, int next);
    // `hole` becomes part of the one that lies before it.
    void merge(int before, int hole);
    void remove_hole(int hole);

    int num_experts_;
    // Where each lies if there is room for all: then any of them can come at any time.
    std::vector<std::int64_t> homes_;
    std::vector<Block> blocks_;
    std::vector<int> holes_, unused_;
};

}  // namespace edgemoe
