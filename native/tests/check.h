// The smallest test harness that says where and with which values a check failed.
//
//     TEST(reads_a_range) { CHECK_EQUAL(reader.wait(ticket).error, 0); }
//     int main() { return edgemoe::testing::run_all(); }
#pragma once

#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace edgemoe::testing {

struct Test {
    const char* name;
    void (*body)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registration {
    Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
    throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename A, typename B>
void check_equal(const A& actual, const B& expected, const char* what, const char* file, int line) {
    if (actual == expected) return;
    std::ostringstream text;
    text.precision(9);
    text << what << " is " << actual << ", expected " << expected;
    fail(file, line, text.str());
}

// Runs every test of the program, or those with `part` in their names; the exit status is the number of
// failures.
inline int run_all(std::string_view part = "") {
    int num_failures = 0;
    for (const Test& test : tests()) {
        if (std::string_view(test.name).find(part) == std::string_view::npos) continue;
        try {
            test.body();
            std::printf("ok    %s\n", test.name);
        } catch (const std::exception& error) {
            ++num_failures;
            std::printf("FAIL  %s\n      %s\n", test.name, error.what());
        }
    }
    return num_failures;
}

}  // namespace edgemoe::testing

#define TEST(name)                                                                   \
    static void test_##name();                                                       \
    static const edgemoe::testing::Registration register_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(condition) \
    if (!(condition)) edgemoe::testing::fail(__FILE__, __LINE__, #condition " does not hold")

#define CHECK_EQUAL(actual, expected) \
    edgemoe::testing::check_equal((actual), (expected), #actual, __FILE__, __LINE__)
